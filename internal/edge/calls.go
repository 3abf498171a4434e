package edge

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// Bounds of what calls to servers outside may cost.
const (
	callTimeout   = 5 * time.Second
	callBody      = 1 << 20
	callHead      = 64 << 10 // header section of a response
	callConns     = 64       // to one host or endpoint, and as many calls at once
	callIdle      = 256      // connections that wait, to all hosts that URLs name, or to all endpoints of a cluster
	callKeep      = 30 * time.Second
	callHandshake = 2 * time.Second
	callYield     = 100 * time.Millisecond // for the connection of a call that has ended to be among the idle ones
)

var (
	errCallsClosed   = errors.New("the edge is ending")
	errCallForbidden = errors.New("the address may not be dialled: backends may not lie there")
	errNoEndpoint    = errors.New("no endpoint takes requests")
	errCallFull      = errors.New("the circuit breaker of the service is full")
	errCallBusy      = errors.New("too many calls to the host are on their way, and the time was over before one ended")
)

// dialFault is an error before anything was sent.
type dialFault struct{ error }

func (f dialFault) Unwrap() error { return f.error }

// Calls is a policy.Caller: it asks servers outside of the data path. No redirect is followed, no proxy of the environment is used, and no
// address is dialled where backends may not lie. What a listener's exceptions open is not open to calls: a policy that makes one may
// belong to somebody else.
type Calls struct {
	set    *upstream.Set
	lookup upstream.Lookup

	mu     sync.Mutex
	closed bool
	hosts  *lane            // of URLs
	lanes  map[string]*lane // of clusters, by key
}

// lane is the connections of servers that are spoken to under the same TLS settings.
type lane struct {
	cluster   *upstream.Cluster // nil: hosts of URLs
	of        *tls.Config       // nil: cleartext
	one       *http.Transport
	prior     *http.Transport // HTTP/2 with prior knowledge
	encrypted bool
	gates     gates
	// Of a cluster's lane: connections, and calls that are on their way.
	open, calls atomic.Int64
}

// gates bound the calls to one host that are on their way, and by that the streams of HTTP/2: where those run out, the transport's own bound
// of connections does not hold, or calls wait until their time is over. Where a server lets a connection have but a few streams there
// may be some more than callConns for a moment.
type gates struct {
	mu sync.Mutex
	of map[string]*gate // those in use
}

type gate struct {
	users int
	slots chan struct{}
}

// enter waits for a slot; leave gives it back.
func (g *gates) enter(ctx context.Context, host string) (leave func(), err error) {
	g.mu.Lock()
	at := g.of[host]
	if at == nil {
		at = &gate{slots: make(chan struct{}, callConns)}
		g.of[host] = at
	}
	at.users++
	g.mu.Unlock()
	gone := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if at.users--; at.users == 0 {
			delete(g.of, host)
		}
	}
	select {
	case at.slots <- struct{}{}:
		return func() {
			<-at.slots
			gone()
		}, nil
	case <-ctx.Done():
		gone()
		return nil, fmt.Errorf("%w: %w", errCallBusy, ctx.Err())
	}
}

// NewCalls returns a Caller that finds clusters in set and names by lookup (nil: the system's resolver).
func NewCalls(set *upstream.Set, lookup upstream.Lookup) *Calls {
	if lookup == nil {
		lookup = upstream.System(net.DefaultResolver.LookupNetIP)
	}
	c := &Calls{set: set, lookup: lookup, lanes: map[string]*lane{}}
	c.hosts = newLane(&tls.Config{MinVersion: tls.VersionTLS12}, c.dialHost)
	return c
}

func newLane(t *tls.Config, dial func(ctx context.Context, network, address string) (net.Conn, error)) *lane {
	transport := func(set func(*http.Protocols)) *http.Transport {
		tr := &http.Transport{DialContext: dial, TLSHandshakeTimeout: callHandshake, MaxConnsPerHost: callConns,
			MaxIdleConnsPerHost: callConns, MaxIdleConns: callIdle, IdleConnTimeout: callKeep, MaxResponseHeaderBytes: callHead,
			DisableCompression: true, Protocols: new(http.Protocols)}
		if t != nil {
			tr.TLSClientConfig = t.Clone()
			tr.TLSClientConfig.NextProtos = nil // the transport's own
		}
		set(tr.Protocols)
		return tr
	}
	return &lane{of: t, encrypted: t != nil, gates: gates{of: map[string]*gate{}},
		one: transport(func(p *http.Protocols) { p.SetHTTP1(true) }),
		prior: transport(func(p *http.Protocols) {
			p.SetHTTP2(true)
			p.SetUnencryptedHTTP2(true)
		})}
}

func (l *lane) close() {
	l.one.CloseIdleConnections()
	l.prior.CloseIdleConnections()
}

// Close closes the connections that wait; those in use end with their call, and no call begins any more.
func (c *Calls) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.hosts.close()
	for _, l := range c.lanes {
		l.close()
	}
	c.lanes = nil
}

// Call is that of policy.Caller. To a cluster it tries a second endpoint if the first cannot be connected to. A request that a kept
// connection lost is sent again if its method is GET, or if its header has an empty list under Idempotency-Key, which itself is not
// sent: net/http's way to say that asking twice does no harm.
func (c *Calls) Call(ctx context.Context, q *policy.Call) (*policy.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(q.Timeout, callTimeout))
	defer cancel()
	req, err := request(ctx, q)
	if err != nil {
		return nil, err
	}
	if q.Cluster != "" {
		return c.ask(q, req)
	}
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return nil, errCallsClosed
	}
	return c.hosts.roundTrip(q, req)
}

// request makes what is sent. The target goes out byte for byte as it is in the URL: whom it is about has to be the same there and here.
func request(ctx context.Context, q *policy.Call) (*http.Request, error) {
	text, _, _ := strings.Cut(q.URL, "#")
	for i := range len(text) {
		if text[i] <= ' ' || text[i] == 0x7f {
			return nil, errors.New("the URL has a space or a control byte in it")
		}
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme != "http" && scheme != "https" {
		return nil, errors.New("the URL is not one of http or https")
	}
	at := len(rest)
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		at = i
	}
	u, err := url.Parse(scheme + "://" + rest[:at])
	if err != nil || u.Host == "" || u.User != nil {
		return nil, errors.New("the URL has no host, or one that cannot be read")
	}
	path, query, asked := strings.Cut(rest[at:], "?")
	u.Opaque, u.RawQuery, u.ForceQuery = cmp.Or(path, "/"), query, asked
	req, err := http.NewRequestWithContext(ctx, cmp.Or(q.Method, http.MethodGet), "http://host/", bodyOf(q.Body))
	if err != nil {
		return nil, errors.New("the method cannot be sent")
	}
	req.URL, req.Host = u, u.Host
	if q.Header != nil {
		req.Header = q.Header.Clone()
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", "gatehouse")
	}
	return req, nil
}

// roundTrip sends and reads all of the response.
func (l *lane) roundTrip(q *policy.Call, req *http.Request) (*policy.Reply, error) {
	leave, err := l.gates.enter(req.Context(), req.URL.Host)
	if err != nil {
		return nil, err
	}
	defer leave()
	l.calls.Add(1)
	defer l.calls.Add(-1)
	tr := l.one
	if q.HTTP2 {
		tr = l.prior
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		if why := req.Context().Err(); why != nil {
			return nil, why
		}
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusSwitchingProtocols {
		return nil, errors.New("the server changed to a protocol that nobody asked for")
	}
	most := cmp.Or(q.Max, callBody)
	if res.ContentLength > most && req.Method != http.MethodHead {
		return nil, policy.ErrTooLarge
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	switch {
	case int64(len(body)) > most:
		return nil, policy.ErrTooLarge
	case err != nil:
		return nil, err
	}
	return &policy.Reply{Status: res.StatusCode, Header: res.Header, Trailer: res.Trailer, Body: body}, nil
}

// ask sends to an endpoint of a cluster. The cluster is held while it does; that it is filled is for the snapshot that names it.
func (c *Calls) ask(q *policy.Call, req *http.Request) (*policy.Reply, error) {
	k := c.set.Acquire(q.Cluster)
	defer c.set.Release(k)
	s := k.Settings()
	if s.Problem != "" {
		return nil, errors.New(s.Problem)
	}
	ok, counted := k.Enter()
	if !ok {
		return nil, errCallFull
	}
	if counted {
		defer k.Leave()
	}
	l, err := c.lane(k, s)
	if err != nil {
		return nil, err
	}
	req.URL.Scheme = "http"
	if l.encrypted {
		req.URL.Scheme = "https"
	}
	var avoid *upstream.Endpoint
	for {
		e := k.Pick(upstream.Choice{Now: time.Now(), Avoid: avoid})
		if e == nil {
			return nil, errNoEndpoint
		}
		r, err := l.try(e, q, req)
		var fault dialFault
		if err == nil || avoid != nil || req.Context().Err() != nil || !errors.As(err, &fault) {
			return r, err
		}
		avoid = e
		req = req.Clone(req.Context())
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// try asks one endpoint, and has its outcome counted for its health.
func (l *lane) try(e *upstream.Endpoint, q *policy.Call, req *http.Request) (*policy.Reply, error) {
	req.URL.Host = e.Text
	e.Tried()
	e.Begin()
	defer e.End()
	r, err := l.roundTrip(q, req)
	switch {
	case err == nil:
		e.Answered(r.Status, time.Now())
	case errors.Is(err, policy.ErrTooLarge), errors.Is(err, context.Canceled), errors.Is(err, errCallFull), errors.Is(err, errCallBusy),
		errors.Is(err, errCallForbidden):
		// not the endpoint's failure
	default:
		e.Failed(time.Now())
	}
	return r, err
}

func bodyOf(b []byte) io.Reader {
	if len(b) == 0 {
		return http.NoBody
	}
	return bytes.NewReader(b)
}

// lane finds the connections of a cluster, or makes a lane when the cluster is new or its TLS changed. Then those of clusters that are
// gone are dropped.
func (c *Calls) lane(k *upstream.Cluster, s *upstream.Settings) (*lane, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errCallsClosed
	}
	l := c.lanes[k.Key]
	if l != nil && l.cluster == k && l.of == s.TLS {
		return l, nil
	}
	if l != nil {
		l.close()
	}
	here := map[string]bool{}
	for _, other := range c.set.All() {
		here[other.Key] = true
	}
	for key, old := range c.lanes {
		if !here[key] {
			old.close()
			delete(c.lanes, key)
		}
	}
	l = newLane(s.TLS, func(ctx context.Context, _, address string) (net.Conn, error) { return c.dialEndpoint(ctx, k, address) })
	l.cluster = k
	c.lanes[k.Key] = l
	return l, nil
}

// reserve has a connection counted. Idle ones give way to it, those of calls too: the transport has one among them a moment after its call
// has ended, so as long as there are more connections than calls one is waited for.
func (c *Calls) reserve(ctx context.Context, k *upstream.Cluster) (l *lane, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, callYield)
	defer cancel()
	c.mu.Lock()
	l = c.lanes[k.Key]
	c.mu.Unlock()
	for !k.Reserve() {
		if l == nil {
			return nil, false
		}
		l.close()
		if k.Reserve() {
			break
		}
		if l.open.Load() < l.calls.Load() {
			return l, false
		}
		select {
		case <-ctx.Done():
			return l, false
		case <-time.After(time.Millisecond):
		}
	}
	return l, true
}

// dialEndpoint connects to an endpoint of a cluster, and counts the connection on it.
func (c *Calls) dialEndpoint(ctx context.Context, k *upstream.Cluster, address string) (net.Conn, error) {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, dialFault{err}
	}
	l, ok := c.reserve(ctx, k)
	if !ok {
		return nil, errCallFull
	}
	ctx, cancel := within(ctx, k.Settings().Connect)
	defer cancel()
	conn, err := c.dial(ctx, a)
	if err != nil {
		k.Unreserve()
		return nil, err
	}
	if l == nil { // the edge is ending
		return &countedConn{Conn: conn, back: sync.OnceFunc(k.Unreserve)}, nil
	}
	l.open.Add(1)
	return &countedConn{Conn: conn, back: sync.OnceFunc(func() {
		l.open.Add(-1)
		k.Unreserve()
	})}, nil
}

// countedConn gives back, when it is closed, what it was counted by.
type countedConn struct {
	net.Conn
	back func()
}

func (c *countedConn) Close() error {
	c.back()
	return c.Conn.Close()
}

// dialHost connects to the host of a URL: to the first of its addresses that may be dialled and answers.
func (c *Calls) dialHost(ctx context.Context, _, address string) (net.Conn, error) {
	ctx, cancel := within(ctx, callTimeout)
	defer cancel()
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, dialFault{err}
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, dialFault{fmt.Errorf("%q is not a port", text)}
	}
	addrs := make([]netip.Addr, 0, 4)
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = append(addrs, a)
	} else if addrs, _, err = c.lookup(ctx, host); err != nil && len(addrs) == 0 {
		return nil, dialFault{err}
	}
	last := error(dialFault{fmt.Errorf("%s has no address", host)})
	for _, a := range addrs {
		at, stop := within(ctx, upstream.DefaultConnect)
		conn, err := c.dial(at, netip.AddrPortFrom(a.Unmap(), uint16(port)))
		stop()
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, last
}

// dial is where every connection of a call is made: after resolution, so that no name leads where no address may.
func (c *Calls) dial(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	if !c.set.AllowedToAll(a) {
		return nil, dialFault{fmt.Errorf("%s: %w", a, errCallForbidden)}
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", a.String())
	if err != nil {
		return nil, dialFault{err}
	}
	return conn, nil
}

func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}
