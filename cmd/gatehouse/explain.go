package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/http1"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
)

// question is a request to explain.
type question struct {
	method, url string
	from        netip.Addr
	header      []string // "Name: value"
}

func runExplain(ctx context.Context, c *call) error {
	p, o := c.place(), c.output()
	header := &list{}
	c.flags.Var(header, "H", "header field of the request, 'Name: value'; may be repeated")
	from := c.flags.String("from", "198.51.100.1", "address of the client")
	rest, err := c.parse()
	if err != nil {
		return err
	}
	if len(rest) != 2 {
		return &usageError{"write a method and a URL, such as GET http://example.com/api"}
	}
	if err := oneOf("-o", *o, "text", "json"); err != nil {
		return err
	}
	q := question{method: rest[0], url: rest[1], header: header.values}
	if q.from, err = netip.ParseAddr(*from); err != nil {
		return &usageError{fmt.Sprintf("--from is %q; write an IP address", *from)}
	}
	f, err := c.load(ctx, p)
	if err != nil {
		return err
	}
	xs, err := explain(f.snapshot, q)
	if err != nil {
		return err
	}
	if *o == "json" {
		return writeJSON(c, xs)
	}
	var b bytes.Buffer
	printExplanations(&b, xs)
	_, err = c.stdout.Write(b.Bytes())
	return err
}

func printExplanations(b *bytes.Buffer, xs []*proxy.Explanation) {
	for i, x := range xs {
		if i > 0 {
			b.WriteByte('\n')
		}
		x.Print(b)
	}
}

// explain answers for each listener group that the request may come to: those on the URL's port, or, if it names none, all
// that speak its scheme; those that have a route for it are preferred to those that do not.
func explain(s *proxy.Snapshot, q question) ([]*proxy.Explanation, error) {
	u, err := url.Parse(q.url)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, &usageError{fmt.Sprintf("%q is not a URL such as http://example.com/api", q.url)}
	}
	sites := sitesFor(s.Config, u)
	if len(sites) == 0 {
		return nil, fmt.Errorf("no listener speaks %s on port %s; there are:%s", strings.ToUpper(u.Scheme), portText(u), listenersText(s.Config))
	}
	head, err := q.head(u)
	if err != nil {
		return nil, err
	}
	var all, found []*proxy.Explanation
	for _, at := range sites {
		x := explainAt(s, at, u.Scheme == "https", q.from, head)
		all = append(all, x)
		if x.Route != "" {
			found = append(found, x)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	return all, nil
}

// explainAt parses the head as the edge would, because what it does not parse it answers by itself.
func explainAt(s *proxy.Snapshot, at siteName, tls bool, from netip.Addr, head []byte) *proxy.Explanation {
	var p http1.Parser
	r := &exchange.Request{}
	n, _, fault := p.ParseRequest(head, r)
	if fault == nil && n == len(head) {
		return proxy.Explain(s, at.group, at.port, tls, netip.AddrPortFrom(from, 50000), time.Now(), r)
	}
	x := &proxy.Explanation{Site: at.String(), Match: []string{"none: the request is refused before it is routed"}}
	if fault != nil {
		x.Status, x.Reason, x.Detail = fault.Status, fault.Reason, fault.Detail
	} else {
		x.Status, x.Reason, x.Detail = 400, "bad_request", "this is not one request"
	}
	return x
}

type siteName struct {
	group string
	port  uint16
}

func (n siteName) String() string { return fmt.Sprintf("%s port %d", n.group, n.port) }

func sitesFor(c *ir.Config, u *url.URL) (out []siteName) {
	protocol := ir.HTTP
	if u.Scheme == "https" {
		protocol = ir.HTTPS
	}
	var rest []siteName
	for _, l := range c.Listeners {
		at := siteName{l.Group, l.Port}
		if l.Protocol != protocol || slices.Contains(out, at) || slices.Contains(rest, at) {
			continue
		}
		switch {
		case strconv.Itoa(int(l.Port)) == portText(u):
			out = append(out, at)
		case u.Port() == "":
			rest = append(rest, at)
		}
	}
	if len(out) > 0 {
		return out
	}
	return rest
}

func portText(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

func listenersText(c *ir.Config) string {
	var b strings.Builder
	for _, l := range c.Listeners {
		fmt.Fprintf(&b, "\n  %s port %d, %s", l.Protocol, l.Port, l.Key)
	}
	if b.Len() == 0 {
		return " none"
	}
	return b.String()
}

// head is what a client would send.
func (q question) head(u *url.URL) ([]byte, error) {
	target := u.EscapedPath()
	if raw := afterAuthority(q.url); raw != "" {
		target = raw
	}
	if target == "" || target[0] != '/' {
		target = "/" + target
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", q.method, target)
	host := u.Host
	for _, h := range q.header {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return nil, &usageError{fmt.Sprintf("-H is %q; write 'Name: value'", h)}
		}
		if strings.EqualFold(strings.TrimSpace(name), "Host") {
			host = strings.TrimSpace(value)
			continue
		}
		fmt.Fprintf(&b, "%s: %s\r\n", name, strings.TrimSpace(value))
	}
	fmt.Fprintf(&b, "Host: %s\r\n\r\n", host)
	return b.Bytes(), nil
}

// afterAuthority is the target as it was written, so that its spelling is explained, not what a URL library makes of it.
func afterAuthority(s string) string {
	_, rest, _ := strings.Cut(s, "://")
	i := strings.IndexAny(rest, "/?")
	if i < 0 {
		return ""
	}
	rest, _, _ = strings.Cut(rest[i:], "#")
	return rest
}
