package authn

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// replies answers by the host of a URL, or by the key of a cluster.
type replies map[string]*policy.Reply

func (r replies) Call(_ context.Context, c *policy.Call) (*policy.Reply, error) {
	if a := r[c.Cluster]; a != nil {
		return a, nil
	}
	host := strings.Split(c.URL, "/")[2]
	if a := r[host]; a != nil {
		return a, nil
	}
	return nil, context.DeadlineExceeded
}

const asking = `{"methods": [
	{"name": "tokens", "introspection": {"url": "https://idp.example/introspect", "strip": true}},
	{"name": "authz", "external": {"protocol": "HTTP", "backendRef": {"name": "authz", "port": 80}, "http": {"allowedResponseHeaders": ["X-User"]}}}]}`

func decode(t *testing.T, text string) *Spec {
	t.Helper()
	s := new(Spec)
	if err := json.Unmarshal([]byte(text), s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestMethodsThatAsk: the chain goes on with what others answer, in the order of the methods.
func TestMethodsThatAsk(t *testing.T) {
	const cluster = "Service/shop/authz/80"
	active := &policy.Reply{Status: 200, Body: []byte(`{"active":true,"sub":"u1"}`)}
	inactive := &policy.Reply{Status: 200, Body: []byte(`{"active":false}`)}
	for _, x := range []struct {
		name    string
		token   bool
		replies replies
		status  int
		reason  string
		subject string
		by      string
	}{
		{"a good token", true, replies{"idp.example": active}, 0, "", "u1", "tokens"},
		{"no token, and the service says yes", false, replies{cluster: {Status: 200}}, 0, "", "", "authz"},
		{"no token, and the service says no", false, replies{cluster: {Status: 302}}, 302, "external_denied", "", ""},
		{"a bad token, and the service is gone", true, replies{"idp.example": inactive}, 503, "external_unavailable", "", ""},
		{"nobody is there", true, replies{}, 503, "introspection_unavailable", "", ""},
	} {
		h, err := decode(t, asking).Compile(policy.Env{Call: x.replies, Refs: map[string]string{"methods[1].external.backendRef": cluster}})
		if err != nil {
			t.Fatal(err)
		}
		e := &exchange.Exchange{Start: time.Unix(1_700_000_000, 0)}
		e.Request.Method, e.Request.Authority, e.Request.Path = []byte("GET"), []byte("shop.example"), []byte("/")
		if x.token {
			e.Request.Header.Append([]byte("Authorization"), []byte("Bearer t"))
		}
		v := h.Request(e)
		for v.Wait != nil {
			v = v.Wait(t.Context())(e)
		}
		if v.Status != x.status || v.Reason != x.reason || e.Identity.Subject != x.subject || e.Identity.Method != x.by {
			t.Errorf("%s: %d %s (%s), identity %+v", x.name, v.Status, v.Reason, v.Detail, e.Identity)
		}
		if x.status == 0 && e.Request.Header.Has("Authorization") {
			t.Errorf("%s: the backend sees the token", x.name)
		}
	}
}

func TestRefsOfMethodsThatAsk(t *testing.T) {
	want := []policy.Ref{{Path: "methods[1].external.backendRef", Kind: "Service", Name: "authz", Port: 80}}
	if diff := cmp.Diff(want, decode(t, asking).refs()); diff != "" {
		t.Error(diff)
	}
}

// TestTold: a field without a value only takes those of its name away.
func TestTold(t *testing.T) {
	var e exchange.Exchange
	for _, n := range []string{"X-Api-Key", "x-api-key", "X-User"} {
		e.Request.Header.Append([]byte(n), []byte("1"))
	}
	c := chain{methods: []entry{{Handler: method.Handler{}}}}
	c.finish(&e, []exchange.Field{{Name: []byte("x-Api-Key")}, {Name: []byte("X-User"), Value: []byte{}}})
	if e.Request.Header.Len() != 1 || len(e.Request.Header.Get("X-User")) != 0 {
		t.Errorf("left: %q", e.Request.Header.All())
	}
}
