package telemetry

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

const (
	flushEvery = 100 * time.Millisecond // how long a line waits at most for others
	batch      = 64 << 10               // bytes in one buffer that are worth writing at once
	// room is how many bytes all buffers hold while the writer is busy; what comes then is dropped. A shard has at least
	// minRoom. Buffers grow only as they are needed, and there are two of each.
	room    = 4 << 20
	minRoom = 512 << 10
)

// access is the log: lines are formatted into the buffer of a shard, which one goroutine takes and writes.
type access struct {
	format  Format
	log     *slog.Logger
	room    int // of a shard
	shards  []*logShard
	dropped atomic.Uint64
	first   chan struct{} // a buffer has its first line
	full    chan struct{} // a buffer holds a batch
	control chan request
	done    chan struct{} // closed when the writer has ended

	path string // "": out is not ours to open
	out  io.Writer
}

type logShard struct {
	mu     sync.Mutex
	closed bool
	buf    []byte
	spare  []byte // the writer's while it writes
	clock  clock
	_      [64]byte
}

// request is an order to the writer.
type request struct {
	reopen bool // else: end
	answer chan error
}

func openAccess(o Options, shards int) (*access, error) {
	a := &access{format: o.Format, log: o.Log, room: max(room/shards, minRoom), first: make(chan struct{}, 1), full: make(chan struct{}, 1),
		control: make(chan request), done: make(chan struct{})}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if o.AccessLog == "stdout" {
		a.out = o.Stdout
		if a.out == nil {
			return nil, fmt.Errorf("no standard output was handed in")
		}
	} else {
		a.path = o.AccessLog
		f, err := openLog(a.path)
		if err != nil {
			return nil, err
		}
		a.out = f
	}
	for range shards {
		a.shards = append(a.shards, &logShard{})
	}
	go a.run()
	return a, nil
}

func openLog(path string) (*os.File, error) {
	return os.OpenFile(filepath.Clean(path), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
}

// write formats the line of an exchange into the buffer of a shard.
func (a *access) write(shard int, x *exchange.Exchange, route string, took time.Duration) {
	s := a.shards[shard]
	s.mu.Lock()
	before := len(s.buf)
	if s.closed || before > a.room {
		s.mu.Unlock()
		a.dropped.Add(1)
		return
	}
	s.buf = a.format.exchange(s.buf, &s.clock, x, route, took)
	after := len(s.buf)
	s.mu.Unlock()
	if before == 0 {
		notify(a.first)
	}
	if before <= batch && after > batch {
		notify(a.full)
	}
}

func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// run is the writer: the only goroutine that waits for the disk or the terminal.
func (a *access) run() {
	defer close(a.done)
	t := time.NewTimer(time.Hour)
	t.Stop()
	for {
		select {
		case <-a.first:
			t.Reset(flushEvery)
		case <-a.full:
			a.flush()
		case <-t.C:
			a.flush()
		case q := <-a.control:
			a.flush()
			if !q.reopen {
				q.answer <- a.shut()
				return
			}
			q.answer <- a.renew()
		}
	}
}

func (a *access) flush() {
	for _, s := range a.shards {
		s.mu.Lock()
		s.buf, s.spare = s.spare[:0], s.buf
		s.mu.Unlock()
		if len(s.spare) == 0 {
			continue
		}
		if n, err := a.out.Write(s.spare); err != nil {
			lost := bytes.Count(s.spare[min(n, len(s.spare)):], []byte{'\n'})
			a.dropped.Add(uint64(lost))
			a.log.Error("writing the access log failed", "lines", lost, "error", err)
		}
	}
}

func (a *access) renew() error {
	if a.path == "" {
		return nil
	}
	f, err := openLog(a.path)
	if err != nil {
		return fmt.Errorf("reopening the access log: %w", err)
	}
	old := a.out.(*os.File)
	a.out = f
	return old.Close()
}

// shut refuses further lines, writes what came meanwhile, and closes the file.
func (a *access) shut() error {
	for _, s := range a.shards {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
	}
	a.flush()
	if f, ok := a.out.(*os.File); ok && a.path != "" {
		return f.Close()
	}
	return nil
}

func (a *access) ask(reopen bool) error {
	q := request{reopen: reopen, answer: make(chan error, 1)}
	select {
	case a.control <- q:
		return <-q.answer
	case <-a.done:
		return errClosed
	}
}

func (a *access) reopen() error { return a.ask(true) }

func (a *access) close() error { return a.ask(false) }
