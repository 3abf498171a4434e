package listener

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatehouse-io/gatehouse/internal/cert"
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// Socket is one socket that is wanted, and what its connections are told.
type Socket struct {
	Bind      ir.Bind
	Group     string      // ir.Listener.Group
	Port      uint16      // as clients see it
	Listeners []string    // keys of the ir.Listeners that share the socket
	TLS       *cert.Table // nil: clear text
	// Proxy says that every connection begins with a PROXY protocol header and comes from one of Trusted; any other is closed.
	Proxy   bool
	Trusted []netip.Prefix
	// PerAddress is how many connections a client address may have, 0: without end.
	PerAddress int
}

// Sockets groups listeners by the binds they need. Of two that cannot share one (another group, another port as clients
// see it, or TLS beside clear text) the older has it, and refused says for the other, by key, who has it. A listener with several
// binds is bound at all of them. stores are the certificates by listener key; asks says, by key, whose clients are asked for a
// certificate (nil: nobody's). A table of certificates that is as in prev is kept.
func Sockets(prev []Socket, ls []*ir.Listener, stores map[string]*cert.Store, asks func(key string) bool) (wanted []Socket, refused map[string]State) {
	older := func(a, b *ir.Listener) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Key, b.Key)) }
	if !slices.IsSortedFunc(ls, older) {
		ls = slices.Clone(ls)
		slices.SortStableFunc(ls, older)
	}
	at := map[ir.Bind]int{}
	owner := map[ir.Bind]*ir.Listener{}
	entries := map[ir.Bind][]cert.Entry{}
	refused = map[string]State{}
	for _, l := range ls {
		for _, b := range l.Binds {
			o := owner[b]
			if o == nil {
				o, owner[b], at[b] = l, l, len(wanted)
				wanted = append(wanted, Socket{Bind: b, Group: l.Group, Port: l.Port})
			}
			if o.Group != l.Group || o.Port != l.Port || (o.Protocol == ir.HTTPS) != (l.Protocol == ir.HTTPS) {
				st := refused[l.Key]
				why := "is older"
				if !o.Created.Before(l.Created) {
					why = "comes first by name"
				}
				st.Problem = join(st.Problem, fmt.Sprintf("%s is taken by %s, which %s", bindText(b), o.Source.Object(), why))
				refused[l.Key] = st
				continue
			}
			w := &wanted[at[b]]
			w.Listeners = append(w.Listeners, l.Key)
			if l.Protocol == ir.HTTPS {
				e := cert.Entry{Hostname: l.Hostname, Store: stores[l.Key], ClientCertificate: asks != nil && asks(l.Key)}
				if l.Client != nil {
					e.MinVersion = l.Client.TLSMinVersion
				}
				entries[b] = append(entries[b], e)
			}
			if l.Client != nil && l.Client.ConnectionsPerAddress > 0 && (w.PerAddress == 0 || l.Client.ConnectionsPerAddress < w.PerAddress) {
				w.PerAddress = l.Client.ConnectionsPerAddress
			}
			if l.Client != nil && l.Client.Address == "ProxyProtocol" && !w.Proxy {
				w.Proxy, w.Trusted = true, l.Client.Trusted
			}
		}
	}
	tables := make(map[ir.Bind]*cert.Table, len(prev))
	for i := range prev {
		tables[prev[i].Bind] = prev[i].TLS
	}
	for i := range wanted {
		if e := entries[wanted[i].Bind]; e != nil {
			wanted[i].TLS = cert.NewTable(tables[wanted[i].Bind], e)
		}
	}
	return wanted, refused
}

// socket is one open listening socket.
type socket struct {
	set  *Set
	ln   *net.TCPListener
	note string
	tls  *cert.Server // lives as long as the socket: it holds the ticket keys
	meta atomic.Pointer[Socket]

	mu    sync.Mutex
	gone  bool // closed: no connection is added any more
	conns map[*Conn]struct{}
	from  map[netip.Addr]int // connections of an address, of those that were counted
	told  time.Time          // when the log last said that an address has too many
}

// open binds w, at port+10000 where a port below 1024 is not permitted.
func (s *Set) open(w *Socket) (*socket, error) {
	k := &socket{set: s, conns: map[*Conn]struct{}{}, from: map[netip.Addr]int{}, tls: cert.NewServer("http/1.1")}
	ln, err := listen(w.Bind)
	if errors.Is(err, unix.EACCES) && w.Bind.Port < 1024 && w.Bind.Port != 0 {
		b := w.Bind
		b.Port += fallbackPort
		if ln, err = listen(b); err == nil {
			k.note = fmt.Sprintf("port %d needs a permission this process does not have: bound %d", w.Bind.Port, b.Port)
		} else {
			err = fmt.Errorf("no permission for port %d, and at port %d: %w", w.Bind.Port, b.Port, err)
		}
	}
	if err != nil {
		return nil, err
	}
	k.ln = ln
	k.update(w)
	return k, nil
}

// listen opens a socket; an invalid address is every address of both families. Go sets SO_REUSEADDR. What Control sets
// is inherited by accepted connections, which saves them system calls of their own.
func listen(b ir.Bind) (*net.TCPListener, error) {
	network, host := "tcp", ""
	if b.Address.IsValid() {
		host = b.Address.String()
		if network = "tcp6"; b.Address.Is4() {
			network = "tcp4"
		} else if b.Address == netip.IPv6Unspecified() {
			network = "tcp"
		}
	}
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { inherit(int(fd)) })
	}}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), network, net.JoinHostPort(host, strconv.Itoa(int(b.Port))))
	if err != nil {
		return nil, err
	}
	return ln.(*net.TCPListener), nil
}

// update hands the settings of w to connections to come. Connections that were accepted for another group, port or
// protocol may finish what they are doing: to users that is another listener, which has taken the socket over.
func (k *socket) update(w *Socket) {
	k.tls.Swap(w.TLS)
	old := k.meta.Swap(w)
	if old != nil && (old.Group != w.Group || old.Port != w.Port || (old.TLS == nil) != (w.TLS == nil)) {
		k.finish(func() {})
	}
}

// accept runs until the socket is closed.
func (k *socket) accept() {
	s := k.set
	var pause time.Duration
	for {
		tcp, err := k.ln.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors or memory, or the peer was gone already
			if !errors.Is(err, unix.ECONNABORTED) {
				pause = min(max(2*pause, 5*time.Millisecond), time.Second)
				s.opt.Log.Warn("accept failed", "address", k.ln.Addr().String(), "error", err, "pause", pause)
				time.Sleep(pause)
			}
			continue
		}
		pause = 0
		s.stats.accepted.Add(1)
		if s.stats.open.Add(1) > int64(s.opt.MaxConns) {
			s.stats.open.Add(-1)
			s.stats.limited.Add(1)
			_ = tcp.SetLinger(0) // a reset, so that no TIME_WAIT is held for it
			_ = tcp.Close()
			continue
		}
		c := newConn(tcp, k)
		if !k.add(c) {
			s.stats.open.Add(-1)
			_ = tcp.Close()
			continue
		}
		go k.serve(c)
	}
}

func (k *socket) serve(c *Conn) {
	defer k.ended(c)
	defer k.recover(c)
	k.set.opt.Serve(c)
}

// goOn is what Continue asked for.
func (k *socket) goOn(c *Conn, f func()) {
	defer k.ended(c)
	defer k.recover(c)
	f()
}

// recover keeps a panic to the connection that it happened on.
func (k *socket) recover(c *Conn) {
	if p := recover(); p != nil {
		c.next = nil
		k.set.opt.Log.Error("connection panicked", "peer", c.rawPeer, "panic", p, "stack", string(debug.Stack()))
	}
}

// ended follows each function that served a connection.
func (k *socket) ended(c *Conn) {
	if f := c.next; f != nil {
		c.next = nil
		go k.goOn(c, f)
		return
	}
	k.remove(c)
	k.set.conns.Done()
}

func (k *socket) add(c *Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone {
		return false
	}
	c.serves(k.meta.Load()) // here, so that one accepted while this changes is either told by retire or has the new one
	k.conns[c] = struct{}{}
	k.set.conns.Add(1)
	return true
}

// remove runs also when Serve panics: the descriptor must not leak then.
func (k *socket) remove(c *Conn) {
	_ = c.Close()
	k.mu.Lock()
	delete(k.conns, c)
	if c.counted.IsValid() {
		if k.from[c.counted]--; k.from[c.counted] == 0 {
			delete(k.from, c.counted)
		}
	}
	k.mu.Unlock()
	k.set.stats.open.Add(-1)
}

func (k *socket) close() {
	k.mu.Lock()
	k.gone = true
	k.mu.Unlock()
	_ = k.ln.Close()
}

// retire tells every connection to end, idle ones at once, others after the exchange they are in, and returns those that it told.
func (k *socket) retire() []*Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	told := make([]*Conn, 0, len(k.conns))
	for c := range k.conns {
		c.stop()
		told = append(told, c)
	}
	return told
}

// finish retires the connections there are, closes what is left of them when Options.Finish is over, and then calls done.
func (k *socket) finish(done func()) {
	told := k.retire()
	time.AfterFunc(k.set.opt.Finish, func() {
		defer done()
		k.mu.Lock()
		defer k.mu.Unlock()
		n := 0
		for _, c := range told {
			if _, ok := k.conns[c]; ok {
				_ = c.tcp.Close()
				n++
			}
		}
		if n > 0 {
			k.set.opt.Log.Info("connections cut: their listener is gone", "address", k.ln.Addr().String(), "connections", n)
		}
	})
}

// abort closes every connection and returns how many there were.
func (k *socket) abort() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.conns {
		_ = c.tcp.Close() // not tls.Conn.Close, which may wait to send an alert
	}
	return len(k.conns)
}

// errCrowded is for a connection beyond Socket.PerAddress.
var errCrowded = errors.New("listener: the client's address has too many connections")

// place counts c for its client's address. Every connection is counted, also without a limit: one may come.
func (k *socket) place(c *Conn, most int) error {
	a := c.peer.Addr()
	if a.Is6() {
		p, _ := a.WithZone("").Prefix(64) // fails only for a length over 128
		a = p.Addr()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if most > 0 && k.from[a] >= most {
		k.set.stats.crowded.Add(1)
		if now := time.Now(); now.Sub(k.told) >= time.Minute {
			k.told = now
			k.set.opt.Log.Warn("connection closed: its address has too many", "socket", k.ln.Addr().String(), "address", a, "connectionsPerAddress", most)
		}
		return errCrowded
	}
	k.from[a]++
	c.counted = a
	return nil
}
