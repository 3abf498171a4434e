package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// payload is the size of UDP answers that are asked for: what passes everywhere without fragments.
const payload = 1232

var (
	errTimeout = errors.New("no answer in time")
	errRefused = errors.New("answered Refused") // the servers do not serve the domain
	errEDNS    = errors.New("the server does not know EDNS")
	errLame    = errors.New("the server is not one for this name, and asks no other")
)

// ask asks the servers one after the other, as often as the configuration says, until one knows.
func (c *Client) ask(ctx context.Context, conf *config, name string, t dnsmessage.Type) answer {
	n, err := dnsmessage.NewName(name)
	if err != nil || !packable(name) {
		return answer{ttl: noSOA} // nothing that DNS could hold
	}
	q := dnsmessage.Question{Name: n, Type: t, Class: dnsmessage.ClassINET}
	var last error
	for range conf.attempts {
		for _, server := range c.order(conf) {
			a := c.exchange(ctx, conf, server, q)
			if a.err == nil {
				return a
			}
			if ctx.Err() != nil {
				return answer{err: fmt.Errorf("%s: %w", name, errTimeout)}
			}
			last = fmt.Errorf("%s: server %s: %w", name, server.Addr(), a.err)
			var timeout net.Error
			if errors.As(a.err, &timeout) || errors.Is(a.err, errTimeout) {
				c.rest(server)
			}
		}
	}
	return answer{err: last}
}

func packable(name string) bool {
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 {
			return false
		}
	}
	return true
}

// order is the servers as they are asked: in their order or by turns, and those that did not answer last.
func (c *Client) order(conf *config) []netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	first := 0
	if conf.rotate {
		first = c.turn % len(conf.servers)
		c.turn++
	}
	var well, resting []netip.AddrPort
	for i := range conf.servers {
		s := conf.servers[(first+i)%len(conf.servers)]
		if now.Before(c.rests[s]) {
			resting = append(resting, s)
		} else {
			well = append(well, s)
		}
	}
	return append(well, resting...)
}

func (c *Client) rest(server netip.AddrPort) {
	c.mu.Lock()
	c.rests[server] = time.Now().Add(resting)
	c.mu.Unlock()
}

// exchange asks one server: by UDP, and by TCP where the answer does not fit.
func (c *Client) exchange(ctx context.Context, conf *config, server netip.AddrPort, q dnsmessage.Question) answer {
	c.mu.Lock()
	edns := !c.legacy[server]
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, conf.timeout)
	defer cancel()
	a := once(ctx, conf.tcp, server, q, edns)
	if edns && errors.Is(a.err, errEDNS) {
		c.mu.Lock()
		c.legacy[server] = true
		c.mu.Unlock()
		a = once(ctx, conf.tcp, server, q, false)
	}
	return a
}

func once(ctx context.Context, tcp bool, server netip.AddrPort, q dnsmessage.Question, edns bool) answer {
	if !tcp {
		a, truncated := over(ctx, "udp", server, q, edns)
		if !truncated {
			return a
		}
	}
	a, _ := over(ctx, "tcp", server, q, edns)
	return a
}

// over sends a query and waits for its answer. What is not the answer to it is passed over: anybody can send to a UDP socket.
func over(ctx context.Context, network string, server netip.AddrPort, q dnsmessage.Question, edns bool) (a answer, truncated bool) {
	var random [2]byte
	_, _ = rand.Read(random[:]) // never fails
	id := binary.BigEndian.Uint16(random[:])
	query, err := pack(id, q, edns)
	if err != nil {
		return answer{err: err}, false
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return answer{err: err}, false
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		stop()
		_ = conn.Close()
	}()
	buf := make([]byte, 4096)
	if network == "tcp" {
		query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	}
	if _, err := conn.Write(query); err != nil {
		return answer{err: err}, false
	}
	for {
		msg, err := receive(conn, buf, network == "tcp")
		if err != nil {
			if ctx.Err() != nil {
				err = errTimeout
			}
			return answer{err: err}, false
		}
		if a, truncated, ok := read(msg, id, q); ok {
			return a, truncated && network == "udp"
		}
		if network == "tcp" {
			return answer{err: errors.New("the answer is to another question")}, false
		}
	}
}

// receive reads one message: a packet, or what has its length before it.
func receive(conn net.Conn, buf []byte, tcp bool) ([]byte, error) {
	if !tcp {
		n, err := conn.Read(buf)
		return buf[:n], err
	}
	if _, err := io.ReadFull(conn, buf[:2]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(buf))
	_, err := io.ReadFull(conn, msg)
	return msg, err
}

func pack(id uint16, q dnsmessage.Question, edns bool) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true})
	b.EnableCompression()
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(q); err != nil {
		return nil, err
	}
	if edns {
		if err := b.StartAdditionals(); err != nil {
			return nil, err
		}
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(payload, dnsmessage.RCodeSuccess, false); err != nil {
			return nil, err
		}
		if err := b.OPTResource(h, dnsmessage.OPTResource{}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// read reads an answer; ok is false if it is none to the question.
func read(msg []byte, id uint16, q dnsmessage.Question) (a answer, truncated, ok bool) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.ID != id || !h.Response {
		return a, false, false
	}
	got, err := p.Question()
	if err == nil && (got.Type != q.Type || got.Class != q.Class || !strings.EqualFold(got.Name.String(), q.Name.String())) {
		return a, false, false
	}
	switch {
	case h.RCode == dnsmessage.RCodeFormatError || h.RCode == dnsmessage.RCodeNotImplemented:
		return answer{err: fmt.Errorf("%w: %s", errEDNS, h.RCode)}, false, true
	case err != nil: // only such refusals may come without the question
		return a, false, false
	case h.Truncated:
		return answer{err: errors.New("the answer is cut off")}, true, true
	case h.RCode == dnsmessage.RCodeRefused:
		return answer{err: errRefused}, false, true
	case h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError:
		return answer{err: fmt.Errorf("answered %s", strings.TrimPrefix(h.RCode.String(), "RCode"))}, false, true
	}
	if err := p.SkipAllQuestions(); err != nil {
		return answer{err: err}, false, true
	}
	records, ttl, err := addresses(&p, q.Type)
	if err != nil {
		return answer{err: err}, false, true
	}
	if len(records) > 0 && h.RCode == dnsmessage.RCodeSuccess {
		return answer{addrs: records, ttl: ttl}, false, true
	}
	ttl, said := negative(&p)
	if !said && h.RCode == dnsmessage.RCodeSuccess && !h.Authoritative && !h.RecursionAvailable {
		return answer{err: errLame}, false, true
	}
	return answer{ttl: ttl, none: h.RCode == dnsmessage.RCodeNameError}, false, true
}

// addresses reads the answer section: the addresses, and the least TTL on the way to them, aliases included.
func addresses(p *dnsmessage.Parser, t dnsmessage.Type) (out []netip.Addr, ttl time.Duration, err error) {
	ttl = -1
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return out, max(ttl, 0), nil
		}
		if err != nil {
			return nil, 0, err
		}
		if d := time.Duration(h.TTL) * time.Second; ttl < 0 || d < ttl {
			ttl = d
		}
		switch {
		case h.Type == dnsmessage.TypeA && t == dnsmessage.TypeA:
			r, err := p.AResource()
			if err != nil {
				return nil, 0, err
			}
			out = append(out, netip.AddrFrom4(r.A))
		case h.Type == dnsmessage.TypeAAAA && t == dnsmessage.TypeAAAA:
			r, err := p.AAAAResource()
			if err != nil {
				return nil, 0, err
			}
			out = append(out, netip.AddrFrom16(r.AAAA).Unmap())
		default:
			if err := p.SkipAnswer(); err != nil {
				return nil, 0, err
			}
		}
	}
}

// negative reads for how long it holds that there is nothing (RFC 2308 section 5); said is false if nobody says so.
func negative(p *dnsmessage.Parser) (ttl time.Duration, said bool) {
	for {
		h, err := p.AuthorityHeader()
		if err != nil {
			return noSOA, false
		}
		if h.Type != dnsmessage.TypeSOA {
			if p.SkipAuthority() != nil {
				return noSOA, false
			}
			continue
		}
		r, err := p.SOAResource()
		if err != nil {
			return noSOA, false
		}
		return time.Duration(min(h.TTL, r.MinTTL)) * time.Second, true
	}
}
