package proxy

import "github.com/gatehouse-io/gatehouse/internal/exchange"

// merge takes empty segments out of the path, which the backend then gets in its canonical spelling.
func (f *Flow) merge() {
	f.Request.Path, f.scratch = exchange.MergeEmptySegments(f.scratch, f.Request.Path)
	f.Request.PathFlags &^= exchange.EmptySegment
	f.canonical = true
}

// spelling refuses paths that servers read differently, where that could lead around a policy: on a path-sensitive host
// the request must have one reading only, and the backend gets that one. again says that the path was changed and the route
// has to be found anew.
func (f *Flow) spelling(l *Listener, r *Route) (a Action, refused, again bool) {
	flags := f.Request.PathFlags
	if flags == 0 {
		f.canonical = f.canonical || r.PathSensitive
		return 0, false, false
	}
	var o Listener
	if l != nil {
		o = *l
	}
	strict := o.RejectEscapes || r.PathSensitive && !o.KeepEscapes
	if strict && flags&exchange.Ambiguous != 0 {
		return f.refuse(400, "path_ambiguous", flags.String()), true, false
	}
	if flags&exchange.EmptySegment != 0 && r.PathSensitive && !o.KeepEmpty {
		f.merge()
		return 0, false, true
	}
	f.canonical = f.canonical || r.PathSensitive
	return 0, false, false
}

// Target is the path that the backend gets: the canonical one where the spelling matters or a step rewrote it, else the
// client's own.
func (f *Flow) Target() []byte {
	if f.canonical || f.Rewritten {
		return f.Request.Path
	}
	return f.Request.RawPath
}
