package authn

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// play is a method that says what a script has.
type play struct {
	i, waits  int
	end       method.State
	challenge string
	params    string
	cookie    bool
	asked     int // Authenticate ran
	answered  int // waits that ran
}

func (p *play) name() string  { return fmt.Sprintf("m%d", p.i) }
func (p *play) field() string { return fmt.Sprintf("X-Credential-%d", p.i) }

func (p *play) outcome(waits int) method.Outcome {
	if waits > 0 {
		return method.Outcome{State: method.Waiting, Asks: "somebody", Wait: func(context.Context) func(*exchange.Exchange) method.Outcome {
			p.answered++
			return func(*exchange.Exchange) method.Outcome { return p.outcome(waits - 1) }
		}}
	}
	o := method.Outcome{State: p.end}
	switch p.end {
	case method.Accepted:
		o.Identity = exchange.Identity{Subject: "s" + p.name(), Scopes: []string{p.name()}}
		if p.i%2 == 1 { // lacks something
			o.Identity = exchange.Identity{Application: "a" + p.name(), Method: "own"}
		}
		o.Header = []exchange.Field{{Name: []byte("X-Told"), Value: []byte(p.name())}, {Name: []byte("X-Gone")}}
		if p.cookie {
			o.Cookies = [][]byte{[]byte("c=" + p.name())}
		}
	case method.Refused, method.Unavailable:
		o.Reason, o.Params = "no_"+p.name(), p.params
	case method.Answered:
		o.Answer = policy.Verdict{Status: 302, Reason: "login_" + p.name()}
	}
	return o
}

func (p *play) handler() method.Handler {
	return method.Handler{Challenge: p.challenge, Authenticate: func(*exchange.Exchange) method.Outcome {
		p.asked++
		return p.outcome(p.waits)
	}, Admit: func(x *exchange.Exchange) { x.Request.Header.Del(p.field()) }}
}

// result is what can be seen of a decision.
type result struct {
	Status         int
	Reason         string
	Shadow, Failed bool
	Challenge      string
	Subject, App   string
	Method, Told   string
	Stripped       bool
	Cookies        string
	Asked          []int // Authenticate
	Waited         []int
}

// model says what has to come of the methods.
func model(all, shadow bool, plays []*play) (r result) {
	var accepted, refused []*play
	absent, unavailable := false, false
	r.Asked, r.Waited = make([]int, len(plays)), make([]int, len(plays))
	decided := false
	for i, p := range plays {
		if decided {
			break
		}
		r.Asked[i] = 1
		if p.waits > 0 && all && (absent || len(refused) > 0) {
			continue
		}
		r.Waited[i] = p.waits
		switch p.end {
		case method.Answered:
			r.Status, r.Reason, r.Shadow, r.Stripped = 302, "login_"+p.name(), shadow, !shadow
			return r
		case method.Absent:
			absent = true
		case method.Accepted:
			accepted = append(accepted, p)
			decided = !all
		default:
			refused = append(refused, p)
			unavailable = unavailable || p.end == method.Unavailable
		}
	}
	r.Stripped = !shadow
	if decided || all && !absent && len(refused) == 0 {
		for _, p := range accepted {
			o := p.outcome(0)
			r.Subject, r.App = or(r.Subject, o.Identity.Subject), or(r.App, o.Identity.Application)
			r.Method = or(r.Method, or(o.Identity.Method, p.name()))
			for _, c := range o.Cookies {
				r.Cookies += string(c) + " "
			}
			if !shadow {
				r.Told = p.name()
			}
		}
		return r
	}
	r.Shadow = shadow
	var challenges []string
	for _, p := range plays {
		c := p.challenge
		for _, q := range refused {
			if c != "" && q == p && p.params != "" {
				c += map[bool]string{true: ", ", false: " "}[strings.Contains(c, " ")] + p.params
			}
		}
		if c != "" {
			challenges = append(challenges, c)
		}
	}
	r.Status, r.Reason, r.Challenge = 401, "credentials_missing", strings.Join(challenges, ", ")
	switch {
	case unavailable:
		r.Status, r.Challenge = 503, ""
		for i := len(refused) - 1; i >= 0; i-- {
			if refused[i].end == method.Unavailable {
				r.Reason = "no_" + refused[i].name()
			}
		}
	case len(refused) > 0:
		r.Reason, r.Failed = "no_"+refused[0].name(), true
	default:
		// Nothing was shown that could be taken away, but what AllOf accepted.
		r.Stripped = r.Stripped && (all || waited(r.Waited))
	}
	return r
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func waited(ns []int) bool {
	for _, n := range ns {
		if n > 0 {
			return true
		}
	}
	return false
}

func compiled(all, shadow bool, plays []*play) *chain {
	c := &chain{all: all, shadow: shadow}
	for _, p := range plays {
		c.methods = append(c.methods, entry{Handler: p.handler(), name: p.name()})
	}
	c.seal()
	return c
}

// run passes a request through the chain, with a credential of every method.
func run(t *rapid.T, c *chain, plays []*play) result {
	x := &exchange.Exchange{}
	x.Enter(0)
	x.Request.Header.Append([]byte("X-Gone"), []byte("1"))
	for _, p := range plays {
		x.Request.Header.Append([]byte(p.field()), []byte("secret"))
	}
	v := c.request(x)
	for v.Wait != nil {
		if v.Status != 0 || x.Identity.Method != "" {
			t.Fatalf("waits with status %d, as %v", v.Status, x.Identity)
		}
		v = v.Wait(context.Background())(x)
	}
	r := result{Status: v.Status, Reason: v.Reason, Shadow: v.Shadow, Failed: x.AuthFailed, Subject: x.Identity.Subject, App: x.Identity.Application,
		Method: x.Identity.Method, Told: string(x.Request.Header.Get("X-Told"))}
	left := 0
	for _, p := range plays {
		if x.Request.Header.Has(p.field()) {
			left++
		}
		r.Asked, r.Waited = append(r.Asked, p.asked), append(r.Waited, p.answered)
	}
	if r.Stripped = left == 0; !r.Stripped && left != len(plays) {
		t.Errorf("%d of %d credentials are left", left, len(plays))
	}
	if (r.Told != "") == x.Request.Header.Has("X-Gone") {
		t.Errorf("told %q: %q", r.Told, x.Request.Header.All())
	}
	n := 0
	for _, f := range v.Header {
		if string(f.Name) == "WWW-Authenticate" {
			r.Challenge = string(f.Value)
			n++
		}
	}
	if n > 1 {
		t.Errorf("%d fields WWW-Authenticate", n)
	}
	c.response(x)
	for _, f := range x.Response.Header.All() {
		if string(f.Name) == "Set-Cookie" {
			r.Cookies += string(f.Value) + " "
		}
	}
	return r
}

func drawPlays(t *rapid.T) []*play {
	plays := make([]*play, rapid.IntRange(1, 4).Draw(t, "methods"))
	for i := range plays {
		plays[i] = &play{i: i, waits: max(rapid.IntRange(-2, 2).Draw(t, "waits"), 0),
			end:       rapid.SampledFrom([]method.State{method.Absent, method.Accepted, method.Refused, method.Unavailable, method.Answered}).Draw(t, "end"),
			challenge: rapid.SampledFrom([]string{"", "Negotiate", `Bearer realm="a"`}).Draw(t, "challenge"),
			params:    rapid.SampledFrom([]string{"", `error="invalid_token"`}).Draw(t, "params"), cookie: rapid.Bool().Draw(t, "cookie")}
	}
	return plays
}

// TestModel: whatever methods say, and after however many waits, the chain decides as a simple model does.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plays, all, shadow := drawPlays(t), rapid.Bool().Draw(t, "all"), rapid.Bool().Draw(t, "shadow")
		want := model(all, shadow, plays)
		if got := run(t, compiled(all, shadow, plays), plays); !cmp.Equal(want, got) {
			t.Errorf("all %v, shadow %v: %s", all, shadow, cmp.Diff(want, got))
		}
	})
}

// TestDry: an exchange that is explained asks nobody, and says what every method says.
func TestDry(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plays, all := drawPlays(t), rapid.Bool().Draw(t, "all")
		c := compiled(all, false, plays)
		x := &exchange.Exchange{Dry: true}
		x.Enter(0)
		v := c.request(x)
		if v.Wait != nil {
			if then := v.Wait(context.Background()); then != nil || !strings.Contains(v.Detail, "would ask somebody (a no ") {
				t.Errorf("a question is really asked: %v; %s", then != nil, v.Detail)
			}
			return
		}
		for _, p := range plays {
			if p.answered > 0 {
				t.Error("somebody was asked")
			}
			if p.asked > 0 && !strings.Contains(v.Detail, p.name()+": ") {
				t.Errorf("%s says nothing of %s", v.Detail, p.name())
			}
		}
	})
}
