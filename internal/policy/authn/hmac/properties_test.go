package hmac

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// parts of a request; the names are those of what a change touches.
type parts struct{ verb, host, path, query, kind, body, created, nonce, key string }

func (p *parts) target() string { return p.path + "?" + p.query }

// signed is the signature of p.
func (p *parts) signed() (input, sig string) {
	return sign([][2]string{
		{`"@method"`, p.verb}, {`"@target-uri"`, "https://" + p.host + p.target()}, {`"@authority"`, p.host},
		{`"content-type"`, p.kind}, {`"content-digest"`, digest(p.body)},
	}, ";created="+p.created+`;keyid="`+p.key+`";nonce="`+p.nonce+`"`, shared)
}

// send makes the request of p with a signature that may be of another.
func (p *parts) send(t testing.TB, input, sig string) *exchange.Exchange {
	return parsed(t, p.verb+" "+p.target()+" HTTP/1.1\r\n"+headers("Host", p.host, "Content-Type", p.kind, "Content-Digest", digest(p.body),
		"Signature-Input", "s="+input, "Signature", "s="+sig), p.body, now)
}

func drawn(t *rapid.T) parts {
	text := func(name, pattern string) string { return rapid.StringMatching(pattern).Draw(t, name) }
	return parts{verb: text("verb", `[A-Z]{1,8}`), host: text("host", `[a-z]{1,9}\.example(:8443)?`), path: text("path", `(/[a-z.]{1,5}){1,3}`),
		query: text("query", `[a-z=&%20]{0,1}[a-z=&]{0,9}`), kind: text("kind", `[a-z]{1,5}/[a-z]{1,5}`), body: text("body", `[ -~]{1,50}`),
		created: fmt.Sprint(now - rapid.IntRange(0, 300).Draw(t, "age")), nonce: text("nonce", `[a-z]{8}`), key: "k"}
}

// What was signed is accepted; with any covered part changed it is refused.
func TestAnyChangeIsRefused(t *testing.T) {
	changes := map[string]func(*parts){
		"method":       func(p *parts) { p.verb += "X" },
		"host":         func(p *parts) { p.host = "evil-" + p.host },
		"path":         func(p *parts) { p.path += "/x" },
		"dot segments": func(p *parts) { p.path = "/x/.." + p.path },
		"query":        func(p *parts) { p.query += "&x" },
		"header":       func(p *parts) { p.kind += "x" },
		"body":         func(p *parts) { p.body += "x" },
	}
	rapid.Check(t, func(rt *rapid.T) {
		p := drawn(rt)
		if strings.HasPrefix(p.query, "%") || p.verb == "CONNECT" {
			rt.Skip()
		}
		h := compiled(t, new(store).put("k", shared), v1alpha1.HMACAuth{})
		input, sig := p.signed()
		for name, change := range changes {
			q := p
			change(&q)
			if o := h.Authenticate(q.send(t, input, sig)); o.State != method.Refused {
				rt.Fatalf("%s changed: %+v", name, o)
			}
		}
		// The text of Signature-Input is covered too, and every byte of the signature.
		for name, other := range map[string]string{
			"created": strings.Replace(input, "created=1", "created=2", 1), "key": strings.Replace(input, `"k"`, `"j"`, 1),
			"nonce": strings.Replace(input, p.nonce, "x"+p.nonce[1:]+"x", 1), "order": strings.Replace(input, `"@method" "@target-uri"`, `"@target-uri" "@method"`, 1),
			"fewer": strings.Replace(input, ` "content-type"`, "", 1), "more": strings.Replace(input, `("@method"`, `("@method" "host"`, 1),
		} {
			if o := h.Authenticate(p.send(t, other, sig)); o.State != method.Refused {
				rt.Fatalf("%s of the input changed: %+v", name, o)
			}
		}
		// (The last letter but one holds two bits that mean nothing.)
		at := rapid.IntRange(1, len(sig)-4).Draw(rt, "at")
		c := byte('A')
		if sig[at] == c {
			c = 'B'
		}
		if o := h.Authenticate(p.send(t, input, sig[:at]+string(c)+sig[at+1:])); o.State != method.Refused {
			rt.Fatalf("the signature changed at %d: %+v", at, o)
		}
		if o := h.Authenticate(p.send(t, input, sig)); o.State != method.Accepted {
			rt.Fatalf("%+v: %+v", p, o)
		}
		if o := h.Authenticate(p.send(t, input, sig)); o.Reason != "signature_replayed" {
			rt.Fatalf("sent again: %+v", o)
		}
	})
}

func TestExplainingUsesNoNonce(t *testing.T) {
	p := parts{"GET", "a", "/", "", "x", "b", fmt.Sprint(now), "n", "k"}
	h := compiled(t, new(store).put("k", shared), v1alpha1.HMACAuth{})
	input, sig := p.signed()
	for range 2 {
		x := p.send(t, input, sig)
		x.Dry = true
		if o := h.Authenticate(x); o.State != method.Accepted {
			t.Errorf("explained: %+v", o)
		}
	}
}

func TestReplaysAreBounded(t *testing.T) {
	r, _ := openReplays()
	r.until(300)
	var sum [sha256.Size]byte
	fill := func(credential string, n int, created int64) (o method.Outcome) {
		for i := range n {
			binary.BigEndian.PutUint64(sum[:], uint64(i+1)) //nolint:gosec // small
			binary.BigEndian.PutUint64(sum[8:], uint64(created))
			if o = r.use(credential, &sum, created, created); o.State != method.Absent {
				return o
			}
		}
		return o
	}
	if o := fill("a", maxNonces, now); o.State != method.Absent {
		t.Fatalf("within the bound: %+v", o)
	}
	binary.BigEndian.PutUint64(sum[:], 1)
	if o := r.use("a", &sum, now, now+300); o.Reason != "signature_replayed" {
		t.Errorf("the first one again, when it is nearly too old: %+v", o)
	}
	sum[0] = 0xff
	if o := r.use("a", &sum, now, now+300); o.State != method.Unavailable || o.Reason != "nonces_exhausted" {
		t.Errorf("one more: %+v", o)
	}
	if o := r.use("b", &sum, now, now); o.State != method.Absent {
		t.Errorf("another key: %+v", o)
	}
	for _, k := range []string{"c", "d"} {
		fill(k, maxNonces, now)
	}
	if o := fill("e", maxNonces, now); o.Reason != "nonces_exhausted" || r.all != maxAllNonces {
		t.Errorf("over the bound of all: %+v, %d", o, r.all)
	}
	for _, k := range []string{"f", "g"} { // room is made when it is needed
		if o := fill(k, maxNonces, now+400); o.State != method.Absent {
			t.Errorf("when all are too old: %+v", o)
		}
	}
	if r.all != 2*maxNonces || len(r.of) != 2 {
		t.Errorf("%d nonces of %d keys are kept, want %d of 2", r.all, len(r.of), 2*maxNonces)
	}
}

func FuzzSignatureInput(f *testing.F) {
	f.Add(`s=("@method" "@query-param";name="x" "date";key="a");created=1700000000;keyid="k"`, "s=:AAAA:")
	f.Add(`s=(),t=();created=1`, "s=:"+strings.Repeat("A", 43)+"=:")
	f.Fuzz(func(t *testing.T, input, sig string) {
		for _, s := range []string{input, sig} {
			for i := range len(s) {
				if s[i] < ' ' || s[i] > '~' {
					return
				}
			}
		}
		h := compiled(t, new(store).put("k", shared), v1alpha1.HMACAuth{Components: []string{"@method"}})
		x := &exchange.Exchange{}
		x.Request.Header.Append([]byte("Signature-Input"), []byte(input))
		x.Request.Header.Append([]byte("Signature"), []byte(sig))
		if o := h.Authenticate(x); o.State == method.Accepted {
			t.Fatalf("accepted: %q, %q", input, sig)
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	p := parts{"POST", "api.example", "/orders/7", "page=1", "application/json", strings.Repeat("b", 1000), fmt.Sprint(now), "n", "k"}
	h := compiled(b, new(store).put("k", shared), v1alpha1.HMACAuth{})
	input, sig := p.signed()
	x := p.send(b, input, sig)
	x.Dry = true // the nonce may be used again
	b.ReportAllocs()
	for b.Loop() {
		if o := h.Authenticate(x); o.State != method.Accepted {
			b.Fatal(o)
		}
	}
}
