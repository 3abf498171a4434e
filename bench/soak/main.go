//go:build linux

// Command soak runs Gatehouse for minutes under load and change, and says whether it stays as it was: requests answered, and neither
// goroutines nor descriptors nor memory growing. It exits 1 if not.
//
// The load: kept connections with and without TLS that send GETs and POSTs with bodies, WebSockets, clients that are slow, clients
// that go away. The change: routes added, changed and removed, a backend replaced, each second; a certificate every ten.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gatehouse-io/gatehouse/bench/lab"
)

// options are the command line.
type options struct {
	gatehouse string
	length    time.Duration
	out       string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("soak", flag.ContinueOnError)
	fs.SetOutput(stderr)
	short := fs.Bool("short", false, "15 s of load: does the soak work?")
	fs.StringVar(&o.gatehouse, "gatehouse", "../bin/gatehouse", "Gatehouse's binary")
	fs.DurationVar(&o.length, "length", 10*time.Minute, "how long the load lasts, at least 10s")
	fs.StringVar(&o.out, "out", "", "file to write the result to, besides standard output")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if *short {
		o.length = 15 * time.Second
	}
	if fs.NArg() > 0 || o.length < 10*time.Second {
		return nil, errors.New("-length must be at least 10s, and no arguments follow the flags")
	}
	if _, err := os.Stat(o.gatehouse); err != nil {
		return nil, fmt.Errorf("missing: %s (make build)", o.gatehouse)
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gatehouse-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := begin(ctx, o, dir, stderr)
	if err != nil {
		return err
	}
	defer s.process.Stop()
	if err := s.soak(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, s.process.Output())
	}
	text, faults := s.report("go run ./soak " + strings.Join(args, " "))
	fmt.Fprint(stdout, text)
	if o.out != "" {
		if err := os.WriteFile(o.out, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if len(faults) > 0 {
		return errors.New("it did not stay as it was:\n  " + strings.Join(faults, "\n  "))
	}
	return nil
}

// soak is a run: the program that is tested, its world, its load, and what has been seen so far.
type soak struct {
	*options
	world         *world
	load          *load
	process       *lab.Process
	health        string
	log           io.Writer
	before, after sample   // without load
	samples       []sample // under load
	changes       tally    // route changes until they were seen
	rotations     tally
}

// begin makes the world and starts Gatehouse on it.
func begin(ctx context.Context, o *options, dir string, log io.Writer) (*soak, error) {
	ports, err := lab.FreePorts(6)
	if err != nil {
		return nil, err
	}
	w, err := newWorld(dir, ports[0], ports[1])
	if err != nil {
		return nil, err
	}
	s := &soak{options: o, world: w, load: &load{world: w, tallies: make([]tally, len(kinds))}, health: fmt.Sprintf("127.0.0.1:%d", ports[2]), log: log}
	s.process, err = lab.Start("", o.gatehouse, "run", "-f", filepath.Join(dir, "conf"), "--bind", "127.0.0.1", "--health", s.health,
		"--admin", fmt.Sprintf("127.0.0.1:%d", ports[3]), "--http-port", fmt.Sprint(ports[4]), "--https-port", fmt.Sprint(ports[5]),
		"--access-log", os.DevNull) // its lines are made and written
	if err != nil {
		return nil, err
	}
	err = s.process.Wait(ctx, func(context.Context) error {
		c := &client{load: s.load}
		defer c.hangUp()
		return c.get()
	})
	if err != nil {
		s.process.Stop()
		return nil, err
	}
	return s, nil
}

// soak lets the load run for its time while the world changes, and looks at the program all the while.
func (s *soak) soak(ctx context.Context) (err error) {
	look := func(ctx context.Context) (sample, error) { return observe(ctx, s.process, s.health) }
	if s.before, err = look(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	loaded, unload := context.WithTimeout(ctx, s.length)
	defer unload()
	done := make(chan struct{})
	go func() { s.load.run(loaded); close(done) }()
	churned := make(chan struct{})
	go func() {
		if err := s.churn(loaded); err != nil {
			cancel(err)
		}
		close(churned)
	}()
	tick := time.NewTicker(s.length / 100)
	defer tick.Stop()
	for loaded.Err() == nil {
		select {
		case <-loaded.Done():
		case <-tick.C:
			v, err := look(ctx)
			if err != nil {
				cancel(err)
				break
			}
			s.samples = append(s.samples, v)
			if len(s.samples)%10 == 0 {
				s.progress()
			}
		}
	}
	<-done
	<-churned
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.world.end()
	s.after, err = settle(ctx, s.before, look)
	return err
}

// progress prints how it goes.
func (s *soak) progress() {
	v := s.samples[len(s.samples)-1]
	fmt.Fprintf(s.log, "%3d %%:", len(s.samples))
	for i, g := range gauges {
		fmt.Fprintf(s.log, " %.0f %s", v[i]/g.unit, g.name)
	}
	for i, k := range kinds {
		good, bad := s.load.tallies[i].counts()
		fmt.Fprintf(s.log, ", %d %s (%d failed)", good, k.name, bad)
	}
	fmt.Fprintln(s.log)
}
