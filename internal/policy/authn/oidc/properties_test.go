package oidc

import (
	"bytes"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

func token3(t *rapid.T, label string) string {
	part := rapid.SliceOfN(rapid.Byte(), 0, 40)
	switch rapid.IntRange(0, 2).Draw(t, label+" kind") {
	case 0:
		return ""
	case 1:
		return rapid.StringMatching(`[!-~]{1,60}`).Draw(t, label)
	}
	return b64(part.Draw(t, label)) + "." + b64(part.Draw(t, label)) + "." + b64(part.Draw(t, label))
}

// TestEncodeProperty: every session comes back as it was.
func TestEncodeProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &session{started: rapid.Int64().Draw(t, "started"), renewAt: rapid.Int64().Draw(t, "renew"), expires: rapid.Int64().Draw(t, "expires"),
			access: token3(t, "access"), refresh: token3(t, "refresh")}
		s.claims = rapid.SliceOf(rapid.Byte()).Draw(t, "claims")
		if rapid.Bool().Draw(t, "id") {
			s.id = "e30." + b64(s.claims) + ".c2ln"
		}
		got, ok := decode(s.encode())
		if !ok || got.started != s.started || got.renewAt != s.renewAt || got.expires != s.expires || got.id != s.id || got.access != s.access ||
			got.refresh != s.refresh || !bytes.Equal(got.claims, s.claims) {
			t.Fatalf("%+v came back as %+v, %v", s, got, ok)
		}
		if _, ok := decode(append(s.encode(), 0)); ok {
			t.Fatal("a byte behind the end was taken")
		}
	})
}

// TestCookiesProperty: whatever length a session has, the browser's cookies give it back, also over those of another one.
func TestCookiesProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNames("s")
		cookies := map[string]string{}
		request := func() *exchange.Exchange {
			x := &exchange.Exchange{Scheme: "https"}
			for k, v := range cookies {
				x.Request.Header.Append([]byte("Cookie"), []byte("a=1; "+k+"="+v+" ;b"))
			}
			return x
		}
		for range 4 {
			sealed := bytes.Repeat([]byte{'x'}, rapid.IntRange(1, maxChunks*maxChunk+3).Draw(t, "size"))
			j := n.jar(request())
			set, ok := j.write(sealed, 10)
			if want := len(sealed) <= maxChunks*maxChunk-2; ok != want {
				t.Fatalf("%d bytes: written %v, want %v", len(sealed), ok, want)
			}
			if !ok {
				continue
			}
			for _, c := range set {
				pair, attributes, _ := strings.Cut(string(c), ";")
				k, v, _ := strings.Cut(pair, "=")
				if cookies[k] = v; strings.Contains(attributes, "Max-Age=0") {
					delete(cookies, k)
				}
			}
			x := request()
			got, state := n.find(x)
			if state != cookieFound || !bytes.Equal(got, sealed) {
				t.Fatalf("%d bytes came back as %d, state %d", len(sealed), len(got), state)
			}
			n.strip(x)
			for _, f := range x.Request.Header.All() {
				if string(f.Value) != "a=1; b" {
					t.Fatalf("a backend sees %q", f.Value)
				}
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add((&session{started: 1, id: "e30.e30.c2ln", access: "a", refresh: "b.c.d"}).encode())
	f.Add([]byte{version, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := decode(b)
		if !ok {
			return
		}
		again, ok := decode(s.encode())
		if !ok || again.id != s.id || again.access != s.access || again.refresh != s.refresh || !bytes.Equal(again.claims, s.claims) {
			t.Errorf("%q: %+v became %+v", b, s, again)
		}
	})
}

func FuzzCookies(f *testing.F) {
	f.Add("gh_session=a; b=c")
	f.Add("gh_session.0=2.x;gh_session.1=y; gh_session_login_AAAAAAAA=q")
	f.Fuzz(func(t *testing.T, line string) {
		if !exchange.IsFieldValue([]byte(line)) {
			return
		}
		n := newNames("gh_session")
		x := &exchange.Exchange{Scheme: "http"}
		x.Request.Header.Append([]byte("Cookie"), []byte(line))
		n.find(x)
		sessions, logins := n.here(x)
		for _, name := range append(sessions, logins...) {
			if !exchange.IsToken([]byte(name)) {
				t.Errorf("%q would be taken away", name)
			}
		}
		n.strip(x)
		if n.any(x.Request.Header.Get("Cookie")) {
			t.Errorf("%q: a backend sees %q", line, x.Request.Header.Get("Cookie"))
		}
	})
}

func FuzzCallback(f *testing.F) {
	f.Add("code=a&state=b&iss=https%3A%2F%2Fidp.example")
	f.Add("error=access_denied&error=x&%zz")
	f.Fuzz(func(t *testing.T, query string) {
		r, why := readReply([]byte(query))
		if why != "" {
			return
		}
		v, err := url.ParseQuery(query)
		if err != nil {
			return // it knows more faults: those of parameters that we do not read
		}
		if v.Get("code") != r.code || v.Get("state") != r.state || v.Get("iss") != r.iss || v.Has("error") != r.hasFault {
			t.Errorf("%q: read %+v, net/url reads %v", query, r, v)
		}
	})
}
