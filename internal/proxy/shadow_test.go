package proxy

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// only is a verdict in shadow mode.
func only(status int, reason string) policy.Verdict {
	return policy.Verdict{Status: status, Reason: reason, Shadow: true, Header: []exchange.Field{{Name: []byte("X-Never"), Value: []byte("1")}}}
}

// TestShadow: what a step in shadow mode would answer, in whichever hook, is noted and changes nothing.
func TestShadow(t *testing.T) {
	done := 0
	var h policy.Handler
	h.Request = func(*exchange.Exchange) policy.Verdict { return only(401, "on_request") }
	h.Response = func(*exchange.Exchange) policy.Verdict { return only(502, "on_response") }
	h.RequestData = func(_ *exchange.Exchange, p []byte, _ bool) ([]byte, policy.Verdict) { return p, only(413, "on_body") }
	h.ResponseData = func(_ *exchange.Exchange, p []byte, _ bool) ([]byte, policy.Verdict) {
		return p, only(502, "on_answer")
	}
	h.Done = func(*exchange.Exchange) { done++ }
	var late policy.Handler
	late.Request = func(*exchange.Exchange) policy.Verdict {
		return policy.Verdict{Wait: func(context.Context) func(*exchange.Exchange) policy.Verdict {
			return func(*exchange.Exchange) policy.Verdict { return only(403, "after_wait") }
		}}
	}
	last := policy.Handler{Request: func(*exchange.Exchange) policy.Verdict { return policy.Verdict{} }}
	w := newWorld(t, 1, []Step{{Config: &ir.Step{Name: "one"}, Handler: h}, {Config: &ir.Step{Name: "two"}, Handler: late}, {Config: &ir.Step{Name: "three"}, Handler: last}}, nil)
	f := &Flow{}
	for range 2 { // the second time with the room of the first
		w.begin(f, "GET", "/app")
		if got, want := play(f, "head resumed connected 200"), "wait connect send respond"; got != want {
			t.Fatalf("%s, want %s", got, want)
		}
		for range 1000 { // pieces of a body
			if p, ok := f.RequestData([]byte("x"), false); !ok || string(p) != "x" {
				t.Fatal("the request's body was cut")
			}
			if p, ok := f.ResponseData([]byte("y"), false); !ok || string(p) != "y" {
				t.Fatal("the response's body was cut")
			}
		}
		want := []exchange.Shadowed{{Step: "one", Reason: "on_request", Status: 401}, {Step: "two", Reason: "after_wait", Status: 403},
			{Step: "one", Reason: "on_response", Status: 502}, {Step: "one", Reason: "on_body", Status: 413}, {Step: "one", Reason: "on_answer", Status: 502}}
		if d := cmp.Diff(want, f.Exchange.Shadow); d != "" {
			t.Error(d)
		}
		if f.Response.Status != 200 || f.Reason != "" || f.Response.Header.Has("X-Never") {
			t.Errorf("the answer is %d %q, %q", f.Response.Status, f.Reason, f.Response.Header.All())
		}
		f.End(f.Start)
	}
	if done != 2 {
		t.Errorf("Done ran %d times, want 2", done)
	}
}

// TestProblem: the document of a refusal, with a type and members of its own.
func TestProblem(t *testing.T) {
	for _, tt := range []struct {
		v    policy.Verdict
		want map[string]any
	}{
		{policy.Verdict{Status: 403, Reason: "access_denied"}, map[string]any{"type": "about:blank", "title": "Forbidden", "status": 403., "reason": "access_denied"}},
		{policy.Verdict{Status: 429, Reason: "rate_limited", Type: "https://iana.org/assignments/http-problem-types#quota-exceeded", Members: []byte(`"violated-policies":["a","b"]`)},
			map[string]any{"type": "https://iana.org/assignments/http-problem-types#quota-exceeded", "title": "Too Many Requests", "status": 429., "reason": "rate_limited",
				"violated-policies": []any{"a", "b"}}},
	} {
		w := newWorld(t, 1, []Step{{Config: &ir.Step{Name: "s"}, Handler: policy.Handler{Request: func(*exchange.Exchange) policy.Verdict { return tt.v }}}}, nil)
		f := &Flow{}
		w.begin(f, "GET", "/app")
		play(f, "head")
		got := map[string]any{}
		if err := json.Unmarshal(f.Response.Body, &got); err != nil {
			t.Fatalf("%s: %v", f.Response.Body, err)
		}
		if got["requestId"] == "" {
			t.Errorf("%s has no id", f.Response.Body)
		}
		delete(got, "requestId")
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Error(d)
		}
		// A browser gets a page: it shows the reason, and nothing of the members.
		w.begin(f, "GET", "/app")
		f.Request.Header.Append([]byte("Accept"), []byte("text/html"))
		play(f, "head")
		if body := string(f.Response.Body); !strings.Contains(body, tt.v.Reason) || strings.Contains(body, "violated") || json.Valid(f.Response.Body) {
			t.Errorf("%s", body)
		}
	}
}

// TestTellsIdentity: a field in which a policy of the listener tells who calls is taken from clients, heads and trailers, in every
// spelling, whoever the peer is.
func TestTellsIdentity(t *testing.T) {
	l := Listener{Identity: []string{"x-user", "remote-user"}}
	trusted := l
	trusted.Trusted = func(netip.Addr) bool { return true }
	for _, l := range []Listener{l, trusted} {
		fields := []string{"X-User: evil", "x-user: evil", "X_USER: evil", "x_uSER: evil", "Remote-User: evil", "remote_user: evil", "Remote_User: evil",
			"X-Users: kept", "X-Use: kept", "XX-User: kept", "X.User: kept"}
		got, f := headWith(t, l, "192.0.2.1:1", fields...)
		kept := 0
		for k, v := range got {
			if strings.Contains(v, "evil") {
				t.Errorf("%s: %s came through", k, v)
			}
			kept += strings.Count(v, "kept")
		}
		if kept != 4 {
			t.Errorf("%d of 4 other fields are left: %v", kept, got)
		}
		for _, field := range append(fields, "X-Gatehouse-Plan: evil", "X_Forwarded_For: evil", "Forwarded: evil", "X-Request-Id: evil", "Checksum: kept") {
			name, value, _ := strings.Cut(field, ": ")
			f.Request.Trailer.Append([]byte(name), []byte(value))
		}
		for range 2 {
			tr := f.Trailer()
			if tr.Len() != 5 {
				t.Errorf("trailers %q", tr.All())
			}
			for _, x := range tr.All() {
				if string(x.Value) != "kept" {
					t.Errorf("the trailer %s came through", x.Name)
				}
			}
		}
	}
}
