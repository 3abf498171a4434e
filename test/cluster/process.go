package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// process is one part of the control plane.
type process struct {
	name string
	log  string // path of the file its output goes to
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // valid after done
}

// startProcess runs the control plane's binary as one of its parts, inside of s. Its output is added to logs/name.log.
func (c *Cluster) startProcess(s *netSpace, name string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(c.logs, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer out.Close()
	p.cmd = exec.Command(c.binary, append([]string{name}, args...)...)
	p.cmd.Dir = c.dir
	p.cmd.Env = []string{"HOME=" + c.dir, "PATH=/usr/bin:/bin", "TMPDIR=" + c.dir}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := s.start(p.cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop asks the process to end and makes it after grace; grace 0 kills it at once. A process that never ran is stopped.
func (p *process) stop(grace time.Duration) {
	if p == nil {
		return
	}
	if grace > 0 {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
			return
		case <-time.After(grace):
		}
	}
	_ = p.cmd.Process.Kill() // fails only if it has ended already
	<-p.done
}

// tail is the end of the process's log, for an error message.
func (p *process) tail() string {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	const most = 3000
	if len(raw) > most {
		raw = raw[len(raw)-most:]
	}
	return string(raw)
}

// await polls ready until it returns nil. It fails early, with the log's end, if the process ends.
func (p *process) await(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended (%w); the end of %s:\n%s", p.name, errors.Join(p.err), p.log, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; the end of %s:\n%s", p.name, err, p.log, p.tail())
		case <-tick.C:
		}
	}
}
