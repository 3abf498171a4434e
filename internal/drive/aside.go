package drive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/http1"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

const (
	maxMirrors  = 512 // that are on their way at once; more are dropped
	mirrorLimit = 15 * time.Second
)

// mirrorJob is a request on its way to mirrors: they get a copy of what the backend gets (Gateway API, RequestMirror), and what they
// answer is thrown away.
type mirrorJob struct {
	d       *Driver
	to      []*upstream.Cluster
	may     func(*upstream.Endpoint) bool
	method  string
	request []byte
	framing http1.Framing
}

// mirror sends copies of the request, whose head and body (if it is at hand) were just written, or has the pump do so once the body is there.
func (w *work) mirror(head, body []byte, flows bool) {
	to, may := w.MirrorClusters()
	j := &mirrorJob{d: w.d, to: to, may: may, method: string(w.Request.Method), request: slices.Concat(head, body)}
	if len(j.to) == 0 || w.upgrading() {
		return
	}
	if flows {
		j.framing, _ = w.requestFraming()
		w.job = j
		return
	}
	j.launch()
}

// send completes the request with the body that has passed, unless that was more than is kept.
func (j *mirrorJob) send(k *kept) {
	if k.lost {
		j.d.stats.MirrorsDropped.Add(int64(len(j.to)))
		return
	}
	j.request = appendBody(j.request, k.data, j.framing, true, &exchange.Header{})
	j.launch()
}

func (j *mirrorJob) launch() {
	s := &j.d.stats
	for _, c := range j.to {
		if j.d.mirrors.Add(1) > maxMirrors {
			j.d.mirrors.Add(-1)
			s.MirrorsDropped.Add(1)
			continue
		}
		go func() {
			defer j.d.mirrors.Add(-1)
			switch err := j.copyTo(c); {
			case err == nil:
				s.MirrorsSent.Add(1)
			case errors.Is(err, errFull): // a copy is worth no connection that requests need
				s.MirrorsDropped.Add(1)
			default:
				j.d.Log.Debug("mirror failed", "cluster", c.Key, "err", err)
				s.MirrorsFailed.Add(1)
			}
		}()
	}
}

// copyTo sends the request to one mirror.
func (j *mirrorJob) copyTo(c *upstream.Cluster) (err error) {
	defer j.d.caught(&err, "mirror", c.Key)
	e := c.Pick(upstream.Choice{Now: time.Now()})
	switch p := c.Settings().Problem; {
	case p != "":
		return errors.New(p)
	case e == nil:
		return errNoEndpoint
	case !j.may(e):
		return errForbidden
	}
	_, err = j.d.ask(&errand{c: c, e: e, method: j.method, request: j.request, limit: mirrorLimit})
	return err
}

var errNoEndpoint = errors.New("no endpoint takes requests")

// caught makes an error of a panic: it may cost what it happened in, not the process.
func (d *Driver) caught(err *error, what, cluster string) {
	if v := recover(); v != nil {
		d.Log.Error("panic in a request of the edge's own", "what", what, "cluster", cluster, "panic", v, "stack", string(debug.Stack()))
		*err = fmt.Errorf("panic: %v", v)
	}
}

// errand is a request of the edge's own.
type errand struct {
	c       *upstream.Cluster
	e       *upstream.Endpoint
	method  string
	request []byte
	limit   time.Duration
	exempt  bool // the circuit breaker does not count its connection
}

// ask sends a request of the edge's own to an endpoint and reads the whole response, whose body it throws away. It takes a
// kept connection, and a new one if that has died, and keeps it afterwards.
func (d *Driver) ask(q *errand) (status int, err error) {
	until := time.Now().Add(q.limit)
	q.e.Begin()
	defer q.e.End()
	conn, err := d.connection(q, until)
	if err != nil {
		return 0, err
	}
	a := &answerReader{conn: conn, buf: d.Take(), method: []byte(q.method)}
	keep := false
	defer func() { // after a panic too
		d.Give(a.buf[:cap(a.buf)])
		if !keep {
			conn.Close()
		}
	}()
	_ = conn.Net.SetDeadline(until) // fails only on a closed connection, which the write will tell
	if _, err := conn.Net.Write(q.request); err != nil {
		return 0, err
	}
	whole, err := a.read()
	if err != nil || !whole || !conn.IO.(*wire).quiet() {
		return a.head.Status, err
	}
	_ = conn.Net.SetDeadline(time.Time{})
	conn.Deadline, conn.WriteDeadline = time.Time{}, time.Time{}
	keep = true
	q.e.Put(conn, time.Now())
	return a.head.Status, nil
}

// connection takes a kept connection or makes one.
func (d *Driver) connection(q *errand, until time.Time) (*upstream.Conn, error) {
	take := q.e.Take
	if q.exempt {
		take = q.e.TakeExempt
	}
	for conn := take(time.Now()); conn != nil; conn = take(time.Now()) {
		if x, ok := conn.IO.(*wire); ok && x.usable() {
			return conn, nil
		}
		conn.Close()
	}
	limit := min(q.limit, q.c.Settings().Connect)
	if !q.exempt {
		return d.dial(context.Background(), q.c, q.e, limit, until)
	}
	if !d.Clusters.Allowed(q.e.Addr) {
		return nil, errForbidden
	}
	conn, err := d.dialReserved(context.Background(), q.e, q.c.Settings(), limit, until)
	if err == nil {
		conn.Exempt()
	}
	return conn, err
}

// answerReader reads one response and throws its body away.
type answerReader struct {
	conn   *upstream.Conn
	buf    []byte
	r, w   int
	method []byte
	head   exchange.Response
	parser http1.Parser
}

func (a *answerReader) read() (keep bool, err error) {
	h, err := a.readHead()
	if err != nil {
		return false, err
	}
	if h.KeepAlive > 0 {
		a.conn.KeepAlive = time.Duration(h.KeepAlive) * time.Second
	}
	switch h.Framing {
	case http1.None:
	case http1.UntilClose:
		_, err := io.Copy(io.Discard, a.conn.Net)
		return false, err
	case http1.Length:
		n := a.head.ContentLength - int64(a.w-a.r)
		if n < 0 {
			return false, nil
		}
		a.r = a.w
		if _, err := io.CopyN(io.Discard, a.conn.Net, n); err != nil {
			return false, err
		}
	default:
		if err := a.skipChunks(); err != nil {
			return false, err
		}
	}
	return !h.Close && a.r == a.w, nil
}

func (a *answerReader) readHead() (http1.Head, error) {
	for range maxInterims {
		a.head.Header.Reset()
		a.parser.Reset()
		for {
			n, h, fault := a.parser.ParseResponse(a.buf[a.r:a.w], a.method, &a.head)
			if fault != nil {
				return h, fault
			}
			if n > 0 {
				a.r += n
				if a.head.Status >= 200 {
					return h, nil
				}
				break
			}
			if err := a.fill(); err != nil {
				return h, err
			}
		}
	}
	return http1.Head{}, errInterims
}

func (a *answerReader) skipChunks() error {
	var chunks http1.Chunks
	chunks.Response = true
	var trailer exchange.Header
	for {
		_, n, done, fault := chunks.Next(a.buf[a.r:a.w], &trailer)
		if fault != nil {
			return fault
		}
		a.r += n
		if done {
			return nil
		}
		if n > 0 {
			continue
		}
		if err := a.fill(); err != nil {
			return err
		}
	}
}

// fill reads more, in front of what is there if the buffer is full.
func (a *answerReader) fill() error {
	if a.r > 0 {
		a.w = copy(a.buf, a.buf[a.r:a.w])
		a.r = 0
		a.parser.Reset()
	}
	if a.w == len(a.buf) {
		return errHeadTooLong
	}
	n, err := a.conn.Net.Read(a.buf[a.w:])
	a.w += n
	if n > 0 {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Check asks every endpoint of a cluster for its health at the interval of its settings until ctx ends, or its settings ask for
// none. Endpoints are asked at the same time; one that does not answer in its time has failed.
func (d *Driver) Check(ctx context.Context, c *upstream.Cluster) {
	for {
		a := c.Settings().Active
		if a == nil {
			return
		}
		d.checkAll(c, a)
		t := time.NewTimer(a.Interval)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

func (d *Driver) checkAll(c *upstream.Cluster, a *upstream.Checks) {
	var wg sync.WaitGroup
	all := c.All()
	room := make(chan struct{}, checkers(len(all), a))
	for _, e := range all {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			err := d.check(c, e, a)
			if errors.Is(err, errForbidden) {
				return // nobody asked it
			}
			if e.Checked(err == nil, time.Now()) {
				d.Log.Info("endpoint's health changed", "cluster", c.Key, "endpoint", e.Text, "healthy", err == nil, "err", err)
			}
		})
	}
	wg.Wait()
}

// checkers is how many endpoints are asked at a time: as many as it takes to be through within the interval though none answers in time.
func checkers(endpoints int, a *upstream.Checks) int {
	most := time.Duration(endpoints) * a.Timeout
	return int(min(max((most+a.Interval-1)/max(a.Interval, 1), 64), 1024))
}

// check asks one endpoint for its health, outside of the circuit breaker: that is about load, and checks are none.
func (d *Driver) check(c *upstream.Cluster, e *upstream.Endpoint, a *upstream.Checks) (err error) {
	defer d.caught(&err, "health check", c.Key)
	status, err := d.ask(&errand{c: c, e: e, method: "GET", request: a.Request(e), limit: a.Timeout, exempt: true})
	if err == nil && !a.Passes(status) {
		err = fmt.Errorf("status %d", status)
	}
	return err
}
