//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-io/gatehouse/bench/lab"
)

// scaleSample is what a large table costs one proxy.
type scaleSample struct {
	proxy   string
	ready   time.Duration   // from the start to the first answer
	memory  int64           // resident bytes more than with one route
	heap    int64           // of Gatehouse: live bytes more than with one route, after a collection; -1: not known
	visible []time.Duration // from the change of one route to the first answer by it
}

const (
	pathsPerHost = 10
	changedHost  = "changed.bench.example"
)

// scalable are those that can be measured: their files can name one more route beside the many. gatehouse-b would be the same again.
func (b *bench) scalable() (names []string) {
	for _, n := range b.proxies {
		if n == "gatehouse" || n == "nginx" {
			names = append(names, n)
		}
	}
	return names
}

// measureScale loads -many routes, ten for each host, and changes one of them again and again.
func (b *bench) measureScale(ctx context.Context) ([]scaleSample, error) {
	defer func(s site) { b.site = s }(b.site)
	var samples []scaleSample
	for _, name := range b.scalable() {
		s := scaleSample{proxy: name}
		b.site.routes, b.site.paths = 1, 1
		_, rss, heap, err := b.load(ctx, name, nil)
		if err != nil {
			return nil, fmt.Errorf("%s with one route: %w", name, err)
		}
		b.site.routes, b.site.paths = b.many/pathsPerHost, pathsPerHost
		var bigRSS, bigHeap int64
		s.ready, bigRSS, bigHeap, err = b.load(ctx, name, func(p *lab.Process) error {
			s.visible, err = b.change(ctx, name, p)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%s with %d routes: %w", name, b.many, err)
		}
		s.memory, s.heap = bigRSS-rss, bigHeap-heap
		if heap < 0 {
			s.heap = -1
		}
		fmt.Fprintf(b.log, "%d routes: %s ready after %.1f s, a change after %.0f ms\n", b.many, name, s.ready.Seconds(), 1000*lab.Median(seconds(s.visible)))
		samples = append(samples, s)
	}
	return samples, nil
}

// load starts a proxy, takes its memory, and lets do go on with it.
func (b *bench) load(ctx context.Context, name string, do func(*lab.Process) error) (ready time.Duration, rss, heap int64, err error) {
	p, err := b.proxy(ctx, name)
	if err != nil {
		return 0, 0, 0, err
	}
	defer p.Stop()
	ready = time.Since(p.Started)
	for i := range 100 {
		host := b.site.hosts()[i*b.site.routes/100]
		status, err := b.ask(ctx, host, pathOf(i%b.site.paths))
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%s%s: status %d", host, pathOf(i%b.site.paths), status)
		}
		if err != nil {
			return 0, 0, 0, err
		}
	}
	if heap = -1; name == "gatehouse" {
		if heap, err = b.heap(ctx); err != nil {
			return 0, 0, 0, err
		}
	}
	u, err := p.Measure()
	if err == nil && do != nil {
		err = do(p)
	}
	return ready, u.RSS, heap, err
}

// heap asks Gatehouse for the bytes that are live after a collection.
func (b *bench) heap(ctx context.Context) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/heap?gc=1&debug=1", b.site.admin), nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`).FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("the heap profile tells no HeapAlloc: %.200s", text)
	}
	return strconv.ParseInt(string(m[1]), 10, 64)
}

// change gives one route another path, again and again, and waits each time until it answers.
func (b *bench) change(ctx context.Context, name string, p *lab.Process) (visible []time.Duration, err error) {
	dir, n := filepath.Join(b.dir, name), b.changes
	if name == "nginx" {
		n = min(n, 3) // each takes about as long as a start
	}
	for i := range n {
		path := fmt.Sprintf("/changed-%d", i)
		file, text := filepath.Join("config", "changed.yaml"), b.site.ingress("changed", changedHost, []string{path})
		if name == "nginx" {
			file, text = "changed.conf", b.site.server(changedHost, []string{path})
		}
		beside := filepath.Join(dir, "changed")
		if err := os.WriteFile(beside, []byte(text), 0o644); err != nil {
			return nil, err
		}
		begin := time.Now()
		if err := os.Rename(beside, filepath.Join(dir, file)); err != nil {
			return nil, err
		}
		if name == "nginx" {
			if err := syscall.Kill(p.PID(), syscall.SIGHUP); err != nil {
				return nil, err
			}
		}
		for status := 0; status != http.StatusOK; {
			if status, err = b.ask(ctx, changedHost, path); err != nil {
				return nil, err
			}
			if time.Since(begin) > 2*time.Minute {
				return nil, fmt.Errorf("change %d not seen after two minutes, status %d", i+1, status)
			}
		}
		visible = append(visible, time.Since(begin))
	}
	return visible, nil
}

// ask sends a GET on a connection of its own: nginx ends kept ones when it reloads.
func (b *bench) ask(ctx context.Context, host, path string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", b.site.plain, path), nil)
	if err != nil {
		return 0, err
	}
	req.Host, req.Close = host, true
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// scaleReport is one table.
func scaleReport(b *bench, samples []scaleSample) string {
	var w bytes.Buffer
	fmt.Fprintf(&w, "\n%d routes over %d hosts, in files; then one route changed %d times, nginx's three (Gatehouse lets a folder settle for 20 ms)\n\n", b.many,
		b.many/pathsPerHost, b.changes)
	t := tabwriter.NewWriter(&w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "PROXY\tready s\tlive heap MiB\tRSS MiB more\tchange ms\tslowest\t\n")
	for _, s := range samples {
		heap := "-"
		if s.heap >= 0 {
			heap = fmt.Sprintf("%.0f", float64(s.heap)/(1<<20))
		}
		v := seconds(s.visible)
		fmt.Fprintf(t, "%s\t%.2f\t%s\t%.0f\t%.1f\t%.1f\t\n", s.proxy, s.ready.Seconds(), heap, float64(s.memory)/(1<<20), 1000*lab.Median(v), 1000*slices.Max(v))
	}
	_ = t.Flush() // to a buffer
	return w.String()
}

func seconds(ds []time.Duration) (out []float64) {
	for _, d := range ds {
		out = append(out, d.Seconds())
	}
	return out
}
