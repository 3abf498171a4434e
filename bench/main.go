//go:build linux

// Command bench measures reverse proxies side by side: Gatehouse (twice, the same binary, as a control), nginx, HAProxy,
// Caddy and httputil.ReverseProxy. A proxy has one core for itself, the load (wrk) and the backend another one; each loads the same 1,000
// routes and does the same work on headers. What counts is the CPU that a proxy's processes spend for a request.
//
// It installs nothing: what is missing it names. It listens on loopback alone and ends only what it started.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	gatehouse   string
	what        []string
	proxies     []string
	connections []int
	secure      []bool // with TLS, without
	routes      int
	rounds      int
	warm, span  time.Duration
	idle        int
	settle      time.Duration
	bytes       int64
	many        int
	changes     int
	coreProxy   string
	coreLoad    string
	out         string
	profile     string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	var short bool
	var measure, proxies, connections, protocols string
	fs.StringVar(&o.gatehouse, "gatehouse", "../bin/gatehouse", "Gatehouse's binary")
	fs.StringVar(&measure, "measure", strings.Join(measurements, ","), "what to measure")
	fs.StringVar(&proxies, "proxies", strings.Join(known, ","), "which to measure, in this order; gatehouse-b is the control")
	fs.StringVar(&connections, "connections", "64,512", "numbers of client connections")
	fs.StringVar(&protocols, "protocols", "http,https", "which to measure")
	fs.IntVar(&o.routes, "routes", 1000, "routes that each proxy loads")
	fs.IntVar(&o.rounds, "rounds", 7, "rounds; every other one goes through the proxies backwards")
	fs.DurationVar(&o.warm, "warm", 2*time.Second, "load before each measurement")
	fs.DurationVar(&o.span, "span", 5*time.Second, "length of each measurement")
	fs.IntVar(&o.idle, "idle", 10000, "number of idle connections")
	fs.DurationVar(&o.settle, "settle", 10*time.Second, "time between the last of them and the look at memory")
	fs.Int64Var(&o.bytes, "bytes", 1<<30, "length of a large body")
	fs.IntVar(&o.many, "many", 100000, "routes, ten for each host, that scale loads")
	fs.IntVar(&o.changes, "changes", 20, "changes of one of them")
	fs.StringVar(&o.coreProxy, "proxy-core", "0", "core for the proxy")
	fs.StringVar(&o.coreLoad, "load-core", "1", "core for wrk and the backend")
	fs.StringVar(&o.out, "out", "", "file to write the table to, besides standard output")
	fs.StringVar(&o.profile, "profile", "", "folder for profiles of Gatehouse: CPU, one per row, from its last round, and what idle connections hold")
	fs.BoolVar(&short, "short", false, "one round of 1 s at 64 connections, with 400 idle ones, bodies of 32 MiB, 2,000 routes, without Caddy: does the harness work?")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if short {
		o.rounds, o.warm, o.span, connections = 1, 500*time.Millisecond, time.Second, "64"
		o.idle, o.settle, o.bytes, o.many, o.changes = 400, 100*time.Millisecond, 32<<20, 2000, 3
		if proxies == strings.Join(known, ",") {
			proxies = "gatehouse,nginx,haproxy,reverseproxy,gatehouse-b"
		}
	}
	o.what = strings.Split(measure, ",")
	for _, m := range o.what {
		if !slices.Contains(measurements, m) {
			return nil, fmt.Errorf("-measure: %q is none of %s", m, strings.Join(measurements, ", "))
		}
	}
	o.proxies = strings.Split(proxies, ",")
	for _, p := range o.proxies {
		if !slices.Contains(known, p) {
			return nil, fmt.Errorf("-proxies: no proxy %q, only %s", p, strings.Join(known, ", "))
		}
	}
	for _, c := range strings.Split(connections, ",") {
		var n int
		if _, err := fmt.Sscan(c, &n); err != nil || n < 1 {
			return nil, fmt.Errorf("-connections: %q is not a number of connections", c)
		}
		o.connections = append(o.connections, n)
	}
	for _, p := range strings.Split(protocols, ",") {
		if p != "http" && p != "https" {
			return nil, fmt.Errorf("-protocols: %q is neither http nor https", p)
		}
		o.secure = append(o.secure, p == "https")
	}
	if o.rounds < 1 || o.routes < 1 || o.idle < 1 || o.bytes < 1<<20 || o.many < 1000 || o.changes < 1 || o.span < time.Second {
		return nil, errors.New("-rounds, -routes, -idle and -changes must be at least 1, -bytes at least 1 MiB, -many at least 1000, -span at least 1s")
	}
	return o, nil
}

// missing names what the machine lacks, with the hint how to get it.
func missing(o *options) []string {
	var out []string
	need := map[string]string{"taskset": "apt-get install util-linux", "go": "go.dev/dl"}
	for _, p := range o.proxies {
		switch p {
		case "nginx":
			need["nginx"] = "apt-get install nginx-light"
		case "haproxy":
			need["haproxy"] = "apt-get install haproxy"
		case "gatehouse", "gatehouse-b":
			need[o.gatehouse] = "make build"
		}
	}
	if !slices.Equal(o.what, []string{"memory"}) {
		need["wrk"] = "apt-get install wrk"
	}
	for program, hint := range need {
		if _, err := exec.LookPath(program); err != nil {
			out = append(out, fmt.Sprintf("%s (%s)", program, hint))
		}
	}
	if err := exec.Command("taskset", "-c", o.coreProxy+","+o.coreLoad, "true").Run(); err != nil && len(out) == 0 {
		out = append(out, fmt.Sprintf("two cores, numbers %s and %s", o.coreProxy, o.coreLoad))
	}
	slices.Sort(out)
	return out
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if m := missing(o); len(m) > 0 {
		return fmt.Errorf("missing: %s", strings.Join(m, ", "))
	}
	for _, p := range []*string{&o.gatehouse, &o.profile} {
		if *p != "" {
			if *p, err = filepath.Abs(*p); err != nil {
				return err
			}
		}
	}
	dir, err := os.MkdirTemp("", "gatehouse-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // nginx's worker is another user
		return err
	}
	b, err := prepare(ctx, o, dir, stderr)
	if err != nil {
		return err
	}
	if err := b.probeAll(ctx); err != nil {
		return err
	}
	text, failed := b.tables(ctx)
	text = head(b, "go run . "+strings.Join(args, " ")) + text
	fmt.Fprint(stdout, text)
	if o.out != "" {
		if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(o.out, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return failed
}

// tables measures what is asked for and returns a table for each row of it. What fails has none; the others have theirs all the same,
// because they took long.
func (b *bench) tables(ctx context.Context) (text string, err error) {
	for _, m := range b.what {
		t, e := b.tablesOf(ctx, m)
		if e != nil {
			fmt.Fprintf(b.log, "%s: %v\n", m, e)
			t, err = fmt.Sprintf("\n%s failed: %v\n", m, e), errors.Join(err, e)
		}
		text += t
	}
	return text, err
}

func (b *bench) tablesOf(ctx context.Context, measurement string) (string, error) {
	program := b.backend
	b.site.stream = measurement == "bodies"
	if b.site.stream {
		program = b.body
	}
	backend, err := b.serve(ctx, program)
	if err != nil {
		return "", err
	}
	defer backend.Stop()
	switch measurement {
	case "policies":
		samples, err := b.measurePolicies(ctx)
		return policiesReport(b, samples), err
	case "idle":
		samples, err := b.measureIdle(ctx)
		return idleReport(b, samples), err
	case "bodies":
		samples, err := b.measureBodies(ctx)
		return bodiesReport(b, samples), err
	case "memory":
		samples, err := b.measureMemory(ctx)
		return memoryReport(samples), err
	case "scale":
		samples, err := b.measureScale(ctx)
		return scaleReport(b, samples), err
	default:
		samples, err := b.measureAll(ctx)
		return requestsReport(b, samples), err
	}
}
