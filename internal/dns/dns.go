// Package dns looks up the addresses of names as the system's configuration says (resolv.conf, the hosts file), and
// tells for how long an answer holds, which Go's own resolver does not. It keeps no answer: whoever asks does.
package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// fileTTL is how long an answer of the hosts file holds, and how often the files are looked at for a change.
	fileTTL = 5 * time.Second
	// noSOA is how long it holds that a name has no addresses where the answer does not say (RFC 2308 section 5).
	noSOA = 10 * time.Second
	// late is how long an answer for one family is waited for once that for the other is there.
	late = 250 * time.Millisecond
	// resting is how long a server that did not answer is asked after the others.
	resting = 30 * time.Second
)

// Options of a Client. The zero value is the system's.
type Options struct {
	Config string // the file resolv.conf; "": /etc/resolv.conf
	Hosts  string // the hosts file; "": /etc/hosts
	Port   uint16 // of the servers; 0: 53
}

// Client looks names up. It may be used by many goroutines.
type Client struct {
	o     Options
	files files

	mu     sync.Mutex
	rests  map[netip.AddrPort]time.Time // servers that did not answer, until when they come last
	turn   int                          // of "rotate"
	legacy map[netip.AddrPort]bool      // servers that do not know EDNS
}

// New returns a Client. That a file is missing or cannot be read is no fault: the defaults of resolv.conf(5) hold.
func New(o Options) *Client {
	if o.Config == "" {
		o.Config = "/etc/resolv.conf"
	}
	if o.Hosts == "" {
		o.Hosts = "/etc/hosts"
	}
	if o.Port == 0 {
		o.Port = 53
	}
	return &Client{o: o, rests: map[netip.AddrPort]time.Time{}, legacy: map[netip.AddrPort]bool{}}
}

// Lookup returns the addresses of a name, IPv4 first, and for how long that holds. An error is a *net.DNSError. Where its IsNotFound
// is set, the name does not exist or has no addresses, and ttl says for how long that holds; else nothing is known. With an error of the
// latter kind there may be addresses: those of one family, when the lookup of the other failed.
func (c *Client) Lookup(ctx context.Context, name string) (addrs []netip.Addr, ttl time.Duration, err error) {
	defer func() {
		if v := recover(); v != nil {
			addrs, ttl, err = nil, 0, failure(name, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		}
	}()
	conf, hosts := c.files.load(c.o)
	key := strings.ToLower(strings.TrimSuffix(name, "."))
	if as := hosts[key]; len(as) > 0 {
		return slices.Clone(as), fileTTL, nil
	}
	if key == "localhost" || strings.HasSuffix(key, ".localhost") { // RFC 6761 section 6.3
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, fileTTL, nil
	}
	absent := answer{ttl: noSOA}
	for _, full := range conf.candidates(name) {
		as, held, none, err := c.both(ctx, conf, full)
		switch {
		case len(as) > 0:
			if err != nil {
				return as, held, failure(name, err)
			}
			return as, held, nil
		case err != nil && !none: // what is not known not to exist comes before the candidates behind it
			return nil, 0, failure(name, err)
		case err != nil && absent.err == nil: // there is no such name, says one family's answer: the search goes on
			absent.err = err
		}
		absent.ttl = held
	}
	if absent.err != nil {
		return nil, 0, failure(name, absent.err)
	}
	return nil, absent.ttl, &net.DNSError{Err: "no such host, or no address of it", Name: name, IsNotFound: true}
}

func failure(name string, err error) error {
	return &net.DNSError{Err: err.Error(), Name: name, IsTemporary: true,
		IsTimeout: errors.Is(err, errTimeout) || errors.Is(err, context.DeadlineExceeded)}
}

// answer is what is known of one name and type: addresses, or that there are none (err nil), for ttl; else why nothing is.
type answer struct {
	addrs []netip.Addr
	ttl   time.Duration
	none  bool // there is no such name, of whatever type (NXDOMAIN, RFC 8020 section 2)
	err   error
}

// both asks for A and AAAA at once. A family that takes long does not hold up the other. none is set if the answer for A was that there is
// no such name, or that the servers do not serve its domain; that for AAAA is not believed, because servers give it for names that have only an A.
func (c *Client) both(ctx context.Context, conf *config, name string) (addrs []netip.Addr, ttl time.Duration, none bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var got [2]chan answer
	for i, t := range [...]dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		got[i] = make(chan answer, 1)
		go func() {
			defer func() {
				if v := recover(); v != nil {
					got[i] <- panicked(v)
				}
			}()
			got[i] <- c.ask(ctx, conf, name, t)
		}()
	}
	var as [2]answer
	var timeout <-chan time.Time
	for range 2 {
		var i int
		var a answer
		select {
		case a = <-got[0]:
			i, got[0] = 0, nil
		case a = <-got[1]:
			i, got[1] = 1, nil
		case <-timeout:
			i = 0
			if got[0] == nil {
				i = 1
			}
			a = answer{err: errTimeout}
		}
		as[i] = a
		if timeout == nil && (len(a.addrs) > 0 || i == 0 && a.none) {
			t := time.NewTimer(late)
			defer t.Stop()
			timeout = t.C
		}
	}
	addrs, ttl, err = merge(as[0], as[1])
	return addrs, ttl, as[0].none || errors.Is(as[0].err, errRefused), err
}

// panicked is a panic as an answer: it costs one lookup.
func panicked(v any) answer { return answer{err: fmt.Errorf("panic: %v\n%s", v, debug.Stack())} }

// merge joins the answers for the two families. Addresses hold as long as the shorter-lived of them; that there are none as long as
// both say so.
func merge(a, b answer) ([]netip.Addr, time.Duration, error) {
	err := errors.Join(a.err, b.err)
	all := slices.Concat(a.addrs, b.addrs)
	var ttl time.Duration
	for _, x := range [...]answer{a, b} {
		if x.err == nil && (len(all) == 0 || len(x.addrs) > 0) && (ttl == 0 || x.ttl < ttl) {
			ttl = x.ttl
		}
	}
	return all, ttl, err
}
