//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/bench/lab"
)

// gauge is one thing that must stay flat, and how far it may rise from the second fifth of the soak to the last: by a tenth and slack.
type gauge struct {
	name  string
	unit  float64 // what a number in the table is of
	slack float64
}

const (
	goroutines = iota
	descriptors
	resident
)

var gauges = [...]gauge{{"goroutines", 1, 20}, {"descriptors", 1, 20}, {"RSS MiB", 1 << 20, 8 << 20}}

// limit is the highest value of a gauge that counts as flat, when it was early.
func (g gauge) limit(early float64) float64 { return early*1.1 + g.slack }

// sample is the values of all gauges at one time.
type sample [len(gauges)]float64

// observe reads the gauges: goroutines from /metrics, descriptors and memory from /proc.
func observe(ctx context.Context, p *lab.Process, health string) (s sample, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+health+"/metrics", nil)
	if err != nil {
		return s, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, fmt.Errorf("reading metrics: %w", err)
	}
	defer res.Body.Close()
	if s[goroutines], err = metric(res.Body, "go_goroutines"); err != nil {
		return s, err
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	if err != nil {
		return s, err
	}
	s[descriptors] = float64(len(fds))
	u, err := p.Measure()
	s[resident] = float64(u.RSS)
	return s, err
}

// metric finds a series without labels in Prometheus' text format.
func metric(r io.Reader, name string) (float64, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("/metrics has no %s", name)
}

// fifths are the medians of a gauge in each fifth of the samples.
func fifths(samples []sample, g int) (medians [5]float64) {
	for i := range medians {
		var v []float64
		for _, s := range samples[i*len(samples)/5 : (i+1)*len(samples)/5] {
			v = append(v, s[g])
		}
		medians[i] = lab.Median(v)
	}
	return medians
}

// settle waits until goroutines and descriptors are back at what they were before the load, with a few to spare: kept connections to
// backends end by themselves. It returns the last sample it took.
func settle(ctx context.Context, before sample, look func(context.Context) (sample, error)) (sample, error) {
	deadline := time.Now().Add(patience)
	for {
		s, err := look(ctx)
		if err != nil {
			return s, err
		}
		if s[goroutines] <= before[goroutines]+spare && s[descriptors] <= before[descriptors]+spare || time.Now().After(deadline) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

const spare = 10 // goroutines or descriptors that may be left after the load
