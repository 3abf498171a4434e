package diag

import "errors"

// Problems takes an error about a spec apart, several joined or one. The paths of its problems are relative to what path names.
func Problems(path string, err error) []Problem {
	var out []Problem
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			out = append(out, Problems(path, e)...)
		}
		return out
	}
	p := Problem{Msg: err.Error()}
	if known := (*Problem)(nil); errors.As(err, &known) {
		p = *known
	}
	p.Path = Join(path, p.Path)
	return []Problem{p}
}

// Under is an error about a part of a spec as one about the whole: path stands before the paths of its problems, which are joined.
func Under(path string, err error) error {
	var out []error
	for _, p := range Problems(path, err) {
		out = append(out, &p)
	}
	return errors.Join(out...)
}
