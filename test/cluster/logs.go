package cluster

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// logBuffer keeps what one run of a container wrote, up to a size; the oldest lines go first.
type logBuffer struct {
	mu      sync.Mutex
	first   int // number of the first line kept
	lines   []logLine
	size    int
	closed  bool
	changed chan struct{} // closed and replaced when something was added
	done    chan struct{}
}

type logLine struct {
	at   time.Time
	text string // without the line's end
}

const mostLog = 16 << 20

func newLogBuffer() *logBuffer {
	return &logBuffer{changed: make(chan struct{}), done: make(chan struct{})}
}

// pipe returns the end to write to. The buffer is complete when all its writers have closed it.
func (b *logBuffer) pipe() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(b.done)
		defer r.Close()
		in := bufio.NewReader(r)
		for {
			line, err := in.ReadString('\n')
			if line != "" {
				b.add(strings.TrimSuffix(line, "\n"))
			}
			if err != nil {
				b.close()
				return
			}
		}
	}()
	return w, nil
}

// wait returns when all that was written is in the buffer.
func (b *logBuffer) wait() { <-b.done }

func (b *logBuffer) add(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, logLine{time.Now(), text})
	b.size += len(text)
	for b.size > mostLog {
		b.size -= len(b.lines[0].text)
		b.lines = b.lines[1:]
		b.first++
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *logBuffer) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	close(b.changed)
	b.changed = make(chan struct{})
}

// tail is the end of the logs, whole lines of at most so many bytes.
func (b *logBuffer) tail(most int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := len(b.lines)
	for i > 0 && most-len(b.lines[i-1].text)-1 >= 0 {
		i--
		most -= len(b.lines[i].text) + 1
	}
	var s strings.Builder
	for _, l := range b.lines[i:] {
		s.WriteString(l.text + "\n")
	}
	return s.String()
}

// logQuery is what a reader of logs can ask for.
type logQuery struct {
	follow     bool
	timestamps bool
	since      time.Time
	tail       int   // < 0: all
	limit      int64 // bytes; 0: none
}

// write writes the logs to w. With follow it goes on until the container has ended or ctx has.
func (b *logBuffer) write(ctx context.Context, w io.Writer, q logQuery) error {
	b.mu.Lock()
	next := b.first
	if q.tail >= 0 && len(b.lines) > q.tail {
		next += len(b.lines) - q.tail
	}
	b.mu.Unlock()
	left := q.limit
	for {
		b.mu.Lock()
		next = max(next, b.first)
		lines := b.lines[next-b.first:]
		closed, changed := b.closed, b.changed
		b.mu.Unlock()
		for _, l := range lines {
			next++
			if l.at.Before(q.since) {
				continue
			}
			text := l.text + "\n"
			if q.timestamps {
				text = l.at.UTC().Format(time.RFC3339Nano) + " " + text
			}
			if q.limit > 0 {
				text = text[:min(int64(len(text)), left)]
				left -= int64(len(text))
			}
			if _, err := io.WriteString(w, text); err != nil {
				return fmt.Errorf("writing logs: %w", err)
			}
			if q.limit > 0 && left == 0 {
				return nil
			}
		}
		if closed || !q.follow {
			return nil
		}
		if f, ok := w.(interface{ Flush() }); ok {
			f.Flush()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
