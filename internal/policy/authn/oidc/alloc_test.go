package oidc

import (
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// prepared is a request with a session, ready to be judged again and again.
func prepared(tb testing.TB, groups int) (*rig, func() *exchange.Exchange) {
	r := newRig(tb, nil)
	r.fake.set(func() { r.fake.claims = func(c map[string]any) { c["groups"] = strings.Repeat("g", groups) } })
	b := r.browser()
	b.login("/")
	x := b.request("GET", "/", "Cookie", "a=1")
	room := x.Request
	again := &exchange.Exchange{}
	return r, func() *exchange.Exchange {
		again.Reset()
		header := again.Request.Header
		again.Request = room
		again.Request.Header = header
		for _, f := range room.Header.All() {
			again.Request.Header.Append(f.Name, f.Value)
		}
		again.Start, again.Scheme = x.Start, x.Scheme
		return again
	}
}

func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, groups := range []int{10, 8000} {
		r, next := prepared(t, groups)
		if n := testing.AllocsPerRun(200, func() {
			x := next()
			if o := r.h.Authenticate(x); o.State != method.Accepted {
				t.Fatal(show(o))
			}
			r.h.Admit(x)
		}); n != 0 {
			t.Errorf("a known session of %d bytes costs %v allocations, want none", groups, n)
		}
	}
}

func BenchmarkKnownSession(b *testing.B) {
	for name, groups := range map[string]int{"one cookie": 10, "three cookies": 8000} {
		b.Run(name, func(b *testing.B) {
			r, next := prepared(b, groups)
			b.ReportAllocs()
			for b.Loop() {
				x := next()
				if o := r.h.Authenticate(x); o.State != method.Accepted {
					b.Fatal(show(o))
				}
				r.h.Admit(x)
			}
		})
	}
}

// BenchmarkNewSession is a session that no request of this process had before.
func BenchmarkNewSession(b *testing.B) {
	r, next := prepared(b, 10)
	m, err := compile("people", r.spec(nil), r.env)
	if err != nil {
		b.Fatal(err)
	}
	m.store = newStore()
	b.ReportAllocs()
	for b.Loop() {
		if o := m.authenticate(next()); o.State != method.Accepted {
			b.Fatal(show(o))
		}
		m.store.forgetAll()
	}
}

func (s *store) forgetAll() {
	for i := range s.shard {
		clear(s.shard[i].young)
		clear(s.shard[i].old)
	}
}

func BenchmarkBeginLogin(b *testing.B) {
	r := newRig(b, nil)
	c := r.browser()
	c.begin("/")
	c.cookies = nil
	x := c.request("GET", "/cart?a=1")
	b.ReportAllocs()
	for b.Loop() {
		if o := r.h.Authenticate(x); o.State != method.Answered {
			b.Fatal(show(o))
		}
	}
}

// BenchmarkJunk is a cookie that opens nothing.
func BenchmarkJunk(b *testing.B) {
	r, next := prepared(b, 10)
	junk := []byte("__Host-gh_session=" + strings.Repeat("A", maxChunk))
	b.ReportAllocs()
	for b.Loop() {
		x := next()
		x.Request.Header.Del("Accept")
		x.Request.Header.Set([]byte("Cookie"), junk)
		if o := r.h.Authenticate(x); o.State != method.Refused {
			b.Fatal(show(o))
		}
	}
}
