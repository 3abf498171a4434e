package proxy

import (
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// forwarding tells how the request would be forwarded, a line each, as far as somebody has written something about it.
func (f *Flow) forwarding() (lines []string) {
	if f.To == nil {
		return nil
	}
	add := func(format string, a ...any) { lines = append(lines, fmt.Sprintf(format, a...)) }
	r, s := f.Matched.Config, f.To.Settings()
	t := &ir.Traffic{}
	if s.Config != nil && s.Config.Traffic != nil {
		t = s.Config.Traffic
	}
	if b := t.Balancer; b != nil {
		text := b.Algorithm
		if text == "" {
			text = ir.RoundRobin
		}
		if h := b.Hash; h != nil {
			text += " of " + strings.TrimSpace(h.By+" "+h.Name)
		}
		add("balance: %s (%s)", text, t.Source)
	}
	if a := f.session.of; a != nil {
		kind, name := "cookie", a.Cookie
		if a.Header != "" {
			kind, name = "header", a.Header
		}
		what := "a new one"
		if f.session.endpoint != nil {
			what = "goes on at " + f.session.endpoint.Text
		}
		add("session: %s %s, %s (%s)", kind, name, what, a.Source)
	}
	if r.Timeouts != (ir.Timeouts{}) || t.Connect != nil || t.First != nil || t.Total != nil {
		connect, first, try := f.Limits()
		text := fmt.Sprintf("connect %s, first byte %s", limit(connect), limit(first))
		if try > 0 {
			text += fmt.Sprintf(", one try %s", try)
		}
		if !f.Expires.IsZero() {
			text += fmt.Sprintf(", in all %s", f.Expires.Sub(f.Start))
		}
		add("times: %s", text)
	}
	if r.Retry != nil || t.Retry != nil {
		rule := f.retryRule()
		add("tries: %s (%s)", triesText(rule), rule.Source)
	}
	return lines
}

func triesText(r *ir.Retry) string {
	if r.Attempts == 0 {
		return "one"
	}
	on := append([]string{}, r.Conditions...)
	for _, c := range r.Codes {
		on = append(on, fmt.Sprint(c))
	}
	text := fmt.Sprintf("%d more on %s", r.Attempts, strings.Join(on, ", "))
	if r.Backoff > 0 {
		text += fmt.Sprintf(", after %s and more", time.Duration(r.Backoff))
	}
	return text
}

func limit(d time.Duration) string {
	if d == 0 {
		return "any"
	}
	return d.String()
}
