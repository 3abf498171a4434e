// Command scale measures how Gatehouse follows a cluster, after the method of the published gateway-api-bench: how long many routes
// take to be attached and how often the Gateway's status is written for it, how long a new route takes to answer, and whether a route
// that changes all the time ever answers wrong. It makes a cluster of its own, installs the chart in it and prints a table.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

func main() {
	cluster.Main()
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		status = 1
	}
	os.Exit(status)
}

// settings are the flags.
type settings struct {
	routes, probes, flips int
	replicas              int
	every                 time.Duration
	out, version          string
}

func run(args []string) (int, error) {
	var s settings
	f := flag.NewFlagSet("scale", flag.ContinueOnError)
	f.IntVar(&s.routes, "routes", 1000, "routes that are attached at once")
	f.IntVar(&s.probes, "probes", 1000, "routes that are created one after the other, each asked for until it answers 200")
	f.IntVar(&s.flips, "flips", 200, "how often a route changes its backend under load")
	f.DurationVar(&s.every, "every", 200*time.Millisecond, "time between two flips")
	f.IntVar(&s.replicas, "replicas", 1, "pods of Gatehouse")
	f.StringVar(&s.out, "out", "", "`file` that gets the table too")
	f.StringVar(&s.version, "version", "unknown", "version of Gatehouse, for the table")
	if err := f.Parse(args); err != nil {
		return 2, nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if !cluster.InLab() {
		if err := cluster.CanLab(); err != nil {
			return 0, err
		}
		if _, err := cluster.BuildControlPlane(ctx, os.Stderr); err != nil {
			return 0, err
		}
		for _, prepare := range []func(context.Context) error{cluster.PrepareGatehouse, cluster.PrepareConformance} {
			if err := prepare(ctx); err != nil {
				return 0, err
			}
		}
		return cluster.Enter(context.Background(), args)
	}
	return 0, s.measure(ctx)
}

// measure runs all measurements in one cluster.
func (s *settings) measure(ctx context.Context) (err error) {
	w, err := open(ctx, s)
	if err != nil {
		return err
	}
	defer func() {
		if e := w.Close(); err == nil {
			err = e
		}
	}()
	kubernetes, err := w.Client().Discovery().ServerVersion()
	if err != nil {
		return err
	}
	var table strings.Builder
	fmt.Fprintf(&table, "Gatehouse %s in a cluster of test/cluster (%d of %d replicas on %d cores, shared with API server, etcd, load and everything else)\n",
		s.version, s.replicas, s.replicas, runtime.NumCPU())
	fmt.Fprintf(&table, "%s, Kubernetes %s, Gateway API %s\n\n", time.Now().UTC().Format(time.DateOnly), kubernetes.GitVersion, cluster.GatewayAPIVersion)
	fmt.Fprintf(&table, "%-52s %-28s %s\n", "what", "measured", "goal")
	for _, m := range []func(context.Context, *world, io.Writer) error{s.attach, s.probe, s.flip} {
		if err := m(ctx, w, &table); err != nil {
			return err
		}
	}
	fmt.Print(table.String())
	if s.out != "" {
		return os.WriteFile(s.out, []byte(table.String()), 0o644)
	}
	return nil
}

func row(w io.Writer, what, goal, format string, args ...any) {
	fmt.Fprintf(w, "%-52s %-28s %s\n", what, fmt.Sprintf(format, args...), goal)
}

// progress tells the waiting user where the measurement is.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "scale: "+format+"\n", args...) }
