package edgetest_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// mortal is a backend that can be ended at once, in the middle of what it does.
func mortal(t *testing.T, h http.Handler) (addr string, end func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = s.Serve(l) }()
	end = sync.OnceFunc(func() { s.Close() })
	t.Cleanup(end)
	return l.Addr().String(), end
}

// TestRollingBackends replaces backends one after the other while clients send. Each old one ends in the middle of what it does, now
// before, now after the edge has learnt that it goes, as programs do that do not wait after SIGTERM. No idempotent request fails: not one
// without a body, with its body at hand, or with a body that comes later and in pieces.
func TestRollingBackends(t *testing.T) {
	work := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond) // the work that an end interrupts
		fmt.Fprintf(w, "%s %d", r.Method, len(b))
	})
	var addrs []string
	var ends []func()
	for range 3 {
		a, end := mortal(t, work)
		addrs, ends = append(addrs, a), append(ends, end)
	}
	r := rig(t, addrs[0])
	setEndpoints(t, r, addrs...)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var sent [3]atomic.Int64
	for kind, body := range []func() io.Reader{
		func() io.Reader { return nil },
		func() io.Reader { return strings.NewReader(strings.Repeat("x", 1000)) },
		func() io.Reader { return &pieces{left: 10} },
	} {
		for range 2 {
			wg.Go(func() {
				tr := &http.Transport{}
				defer tr.CloseIdleConnections()
				for ctx.Err() == nil {
					if err := roll(tr, "http://"+r.Addr+"/", kind, body()); err != nil {
						t.Error(err)
						return
					}
					sent[kind].Add(1)
				}
			})
		}
	}
	for i := range 30 {
		have := sent[0].Load() + sent[1].Load() + sent[2].Load()
		for sent[0].Load()+sent[1].Load()+sent[2].Load() < have+30 && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
		a, end := mortal(t, work)
		old := ends[0]
		addrs, ends = append(addrs[1:], a), append(ends[1:], end)
		if i%2 == 0 {
			old() // the edge learns of it later
		}
		setEndpoints(t, r, addrs...)
		old()
	}
	cancel()
	wg.Wait()
	s := r.Edge.Driver().Stats()
	if s.Retries.Load()+s.Replays.Load() == 0 {
		t.Error("nothing was tried again: the test shows nothing")
	}
	t.Logf("%d, %d, %d requests, %d tries by the rule, %d replays", sent[0].Load(), sent[1].Load(), sent[2].Load(), s.Retries.Load(), s.Replays.Load())
}

// roll sends one request of a kind, without net/http's own tries: a PUT is repeated only if its body can be had again.
func roll(tr *http.Transport, url string, kind int, body io.Reader) error {
	method, want := "PUT", []string{"DELETE 0", "PUT 1000", "PUT 100"}[kind]
	if body == nil {
		method = "DELETE"
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return err
	}
	req.GetBody = nil
	res, err := tr.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%s: %w", want, err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || string(got) != want {
		return fmt.Errorf("%s: %d %q, %v", want, res.StatusCode, got, err)
	}
	return nil
}

// pieces is a body of as many times ten bytes, each after a moment.
type pieces struct{ left int }

func (p *pieces) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	p.left--
	time.Sleep(300 * time.Microsecond)
	return copy(b, "0123456789"), nil
}
