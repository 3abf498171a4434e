package token

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// corpus opens a file of the shared corpora, which lie beside the repository.
func corpus(t *testing.T, name string) *os.File {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		f, err := os.Open(filepath.Join(dir, "shared", "corpora", name))
		if err == nil {
			t.Cleanup(func() { f.Close() })
			return f
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Skipf("no folder above this one has shared/corpora/%s: the test data is not here", name)
		}
		dir = up
	}
}

type vector struct {
	File, Group, Result, Comment string
	TcID                         int
	JWS, Public, Private         json.RawMessage
}

// TestWycheproof runs the vectors of Wycheproof: nothing invalid is accepted, and what is valid and refused anyway is listed here.
func TestWycheproof(t *testing.T) {
	var all []vector
	valid := map[string]int{} // keys and text -> tcId
	lines := bufio.NewScanner(corpus(t, "jws-wycheproof.jsonl"))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
		if v.Result == "valid" {
			valid[v.whole()] = v.TcID
		}
	}
	refused := map[string]int{}
	accepted, invalid := 0, 0
	for _, v := range all {
		err := v.verify()
		twin, same := valid[v.whole()]
		switch {
		case v.Result == "invalid" && err == nil && same:
			t.Logf("%s %d (%s) is called invalid and is, byte for byte, the valid %d", v.File, v.TcID, v.Comment, twin)
		case v.Result == "invalid" && err == nil:
			t.Errorf("%s %d (%s, %s) is accepted, and is invalid", v.File, v.TcID, v.Group, v.Comment)
		case v.Result == "invalid":
			invalid++
		case err == nil:
			accepted++
		default:
			refused[fmt.Sprintf("%s: %s", v.Group, err)]++
		}
	}
	var got []string
	for why, n := range refused {
		got = append(got, fmt.Sprintf("%d x %s", n, why))
	}
	sort.Strings(got)
	want := []string{
		"1 x rfc7520: algorithm_not_allowed: the key is not for PS384",           // the key's alg is RS256: one key, one algorithm
		"1 x rfc7520: keys[0]: alg \"ES521\" is none that fits the key",          // there is no such algorithm
		"1 x rfc7520WithKeyOps: algorithm_not_allowed: the key is not for PS384", // as above
		"1 x rfc7520WithKeyOps: keys[0]: alg \"ES521\" is none that fits the key",
		"2 x base64: token_malformed: is not base64url", // with "?" put in, which base64url does not have
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("valid vectors that are refused (-want +got):\n%s", d)
	}
	t.Logf("%d valid accepted, %d invalid refused", accepted, invalid)
}

func (v *vector) whole() string { return string(v.Private) + string(v.JWS) }

func (v *vector) verify() error {
	text, symmetric := v.Public, false
	if string(text) == "null" {
		text, symmetric = v.Private, true
	}
	if !bytes.Contains(text, []byte(`"keys"`)) {
		text = []byte(`{"keys":[` + string(text) + `]}`)
	}
	keys, dropped, err := ParseKeys(text, symmetric)
	if err != nil {
		return err
	}
	if keys.Len() == 0 {
		return dropped[0]
	}
	var compact string
	if json.Unmarshal(v.JWS, &compact) != nil {
		compact = string(v.JWS) // one of the JSON forms
	}
	j, f := Parse([]byte(compact))
	if f != nil {
		return f
	}
	allowed := Asymmetric
	if symmetric {
		allowed = Symmetric
	}
	if f := keys.Verify(j, allowed); f != nil {
		return f
	}
	return nil
}
