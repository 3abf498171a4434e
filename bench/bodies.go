//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-io/gatehouse/bench/lab"
)

// flow is one way for a body to go.
type flow struct {
	do     string // as the program body calls it
	secure bool
}

func (f flow) String() string { return f.do + " over " + scheme(f.secure) }

// size is how long a body is: one that goes in chunks of ten bytes is 5 million of them where another is 1 GiB.
func (b *bench) size(f flow) int64 {
	if strings.HasPrefix(f.do, "crumbs") {
		return b.bytes * 5_000_000 / (1 << 30) * 10
	}
	return b.bytes
}

// bodySample is one large body on its way through a proxy.
type bodySample struct {
	proxy      string
	flow       flow
	round      int
	cpu, took  time.Duration
	idle, peak int64 // resident bytes: after start and one request, and at most while the body was under way
}

func (b *bench) flows() (flows []flow) {
	for _, secure := range b.secure {
		for _, do := range []string{"upload", "chunked", "download", "crumbs-up", "crumbs-down"} {
			flows = append(flows, flow{do, secure})
		}
	}
	return flows
}

// measureBodies sends bodies of -bytes each way through each proxy, one at a time.
func (b *bench) measureBodies(ctx context.Context) ([]bodySample, error) {
	var samples []bodySample
	for round := range min(b.rounds, 3) {
		order := slices.Clone(b.proxies)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, name := range order {
			if name == "caddy-first" {
				continue // the order of routes is nothing to a long body
			}
			got, err := b.bodiesOf(ctx, name, round)
			if err != nil {
				return nil, fmt.Errorf("bodies through %s, round %d: %w", name, round+1, err)
			}
			samples = append(samples, got...)
		}
	}
	return samples, nil
}

func (b *bench) bodiesOf(ctx context.Context, name string, round int) (samples []bodySample, err error) {
	p, err := b.proxy(ctx, name)
	if err != nil {
		return nil, err
	}
	defer p.Stop()
	idle, err := p.Measure()
	if err != nil {
		return nil, err
	}
	for _, f := range b.flows() {
		s := bodySample{proxy: name, flow: f, round: round, idle: idle.RSS}
		if err := b.transfer(ctx, p, &s); err != nil {
			return nil, fmt.Errorf("%v: %w\n%s", f, err, p.Output())
		}
		fmt.Fprintf(b.log, "round %d, %v: %s %.0f MiB/s, %.2f ms CPU/MiB, %+.1f MiB resident\n", round+1, f, name,
			float64(b.size(f))/(1<<20)/s.took.Seconds(), s.cpuEach(b.size(f)), s.growth())
		samples = append(samples, s)
	}
	return samples, nil
}

// transfer moves one body and fills in what it cost.
func (b *bench) transfer(ctx context.Context, p *lab.Process, s *bodySample) error {
	args := []string{b.body, "-host", measuredHost, "-path", prefix, "-do", s.flow.do, "-bytes", strconv.FormatInt(b.size(s.flow), 10)}
	if s.flow.secure {
		args = append(args, "-to", fmt.Sprintf("127.0.0.1:%d", b.site.secure), "-roots", b.site.certFile)
	} else {
		args = append(args, "-to", fmt.Sprintf("127.0.0.1:%d", b.site.plain))
	}
	if err := p.ResetPeak(); err != nil {
		return err
	}
	before, err := p.Measure()
	if err != nil {
		return err
	}
	client, err := lab.Start(b.coreLoad, args...)
	if err != nil {
		return err
	}
	defer client.Stop()
	select {
	case <-client.Done:
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := p.Measure()
	if err != nil {
		return err
	}
	if s.peak, err = p.Peak(); err != nil {
		return err
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(client.Output()), 10, 64)
	if err != nil {
		return fmt.Errorf("the client says: %s", client.Output())
	}
	s.cpu, s.took = after.CPU-before.CPU, time.Duration(ns)
	return nil
}

// cpuEach is the CPU time for a MiB, in milliseconds.
func (s bodySample) cpuEach(n int64) float64 {
	return s.cpu.Seconds() * 1000 / (float64(n) / (1 << 20))
}

// growth is by how much memory rose over idle, in MiB.
func (s bodySample) growth() float64 { return float64(s.peak-s.idle) / (1 << 20) }

// bodiesReport is a table for each way.
func bodiesReport(b *bench, samples []bodySample) string {
	var w bytes.Buffer
	for _, f := range b.flows() {
		fmt.Fprintf(&w, "\nbodies, %v: one of %d MiB; memory at most, over that of the idle proxy\n\n", f, b.size(f)>>20)
		t := tabwriter.NewWriter(&w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(t, "PROXY\tMiB/s\tx nginx\t(min-max)\tCPU ms/MiB\tx nginx\t(min-max)\tMiB more\t(max)\t\n")
		for _, name := range b.proxies {
			var rate, cpu, growth, rates, cpus []float64
			for _, s := range samples {
				if s.proxy != name || s.flow != f {
					continue
				}
				rate = append(rate, float64(b.size(f))/(1<<20)/s.took.Seconds())
				cpu, growth = append(cpu, s.cpuEach(b.size(f))), append(growth, s.growth())
				for _, n := range samples {
					if n.proxy == "nginx" && n.flow == f && n.round == s.round {
						rates = append(rates, n.took.Seconds()/s.took.Seconds())
						if n.cpu > 0 {
							cpus = append(cpus, s.cpu.Seconds()/n.cpu.Seconds())
						}
					}
				}
			}
			if len(rate) > 0 {
				fmt.Fprintf(t, "%s\t%.0f\t%s\t%.2f\t%s\t%.1f\t%.1f\t\n", name, lab.Median(rate), spread(rates), lab.Median(cpu), spread(cpus),
					lab.Median(growth), slices.Max(growth))
			}
		}
		_ = t.Flush() // to a buffer
	}
	return w.String()
}

// spread is two cells of a table: median, and least to most.
func spread(v []float64) string {
	if len(v) == 0 {
		return "-\t-"
	}
	return fmt.Sprintf("%.2f\t%.2f-%.2f", lab.Median(v), slices.Min(v), slices.Max(v))
}
