//go:build linux

package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-io/gatehouse/bench/lab"
)

// head says what was measured on what, and how.
func head(b *bench, command string) string {
	var w bytes.Buffer
	fmt.Fprintf(&w, "Reverse proxies side by side, %s\n\n", time.Now().UTC().Format("2006-01-02"))
	fmt.Fprintf(&w, "machine   %s\n", lab.Machine())
	for i, v := range b.versions {
		fmt.Fprintf(&w, "%-9s %s\n", map[bool]string{true: "versions"}[i == 0], v)
	}
	fmt.Fprintf(&w, "command   %s\n", command)
	fmt.Fprintf(&w, `setting   proxy alone on core %s; wrk (1 thread) and an epoll backend on core %s, loopback; %d routes of one host each,
          the measured one in the middle (caddy-first: first, because Caddy tries routes in order); answers of 1 KiB;
          upstream keep-alive on, access log off, metrics on (nginx: stub_status; ReverseProxy has none); TLS 1.3, TLS_AES_128_GCM_SHA256,
          ECDSA P-256; each adds %s
measured  %d rounds of %v after %v of load, every other round in reverse order; CPU of all threads of the proxy's
          processes from /proc, requests counted by the backend; core is the proxy's share of its core, others everybody
          else's there (noise); p50 and p99 from wrk, under full load; values are medians
`, b.coreProxy, b.coreLoad, b.routes, strings.Join(fields, ", "), b.rounds, b.span, b.warm)
	for _, n := range b.notes {
		fmt.Fprintf(&w, "unequal   %s\n", n)
	}
	return w.String()
}

// requestsReport is a table for each row, and the ratios by round.
func requestsReport(b *bench, samples []sample) string {
	var w bytes.Buffer
	for _, r := range b.rows() {
		fmt.Fprintf(&w, "\n%v\n\n", r)
		t := tabwriter.NewWriter(&w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(t, "PROXY\tCPU us/req\tx nginx\t(min-max)\trequests/s\tcore %%\tothers %%\tp50 ms\tp99 ms\tRSS MiB\t\n")
		for _, name := range b.proxies {
			line(t, name, r, samples)
		}
		_ = t.Flush() // to a buffer
		fmt.Fprint(&w, byRound(b, r, samples))
	}
	return w.String()
}

func line(t *tabwriter.Writer, name string, r row, samples []sample) {
	var cpu, rate, busy, others, p50, p99, rss []float64
	for _, s := range samples {
		if s.proxy == name && s.row == r {
			cpu = append(cpu, s.perRequest())
			rate = append(rate, float64(s.requests)/s.span.Seconds())
			busy = append(busy, 100*s.cpu.Seconds()/s.span.Seconds())
			others = append(others, 100*s.others.Seconds()/s.span.Seconds())
			p50 = append(p50, s.p50.Seconds()*1000)
			p99 = append(p99, s.p99.Seconds()*1000)
			rss = append(rss, float64(s.rss)/(1<<20))
		}
	}
	ratio, span := "-", "-"
	if rs := ratios(name, "nginx", r, samples); len(rs) > 0 {
		ratio = fmt.Sprintf("%.2f", lab.Median(rs))
		span = fmt.Sprintf("%.2f-%.2f", slices.Min(rs), slices.Max(rs))
	}
	fmt.Fprintf(t, "%s\t%.2f\t%s\t%s\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t%.0f\t\n", name, lab.Median(cpu), ratio, span, lab.Median(rate), lab.Median(busy),
		lab.Median(others), lab.Median(p50), lab.Median(p99), lab.Median(rss))
}

// byRound prints each proxy's ratio to nginx in every round, and the control pair's ratio to each other: how far two runs of the
// same binary lie apart is how far a difference means nothing.
func byRound(b *bench, r row, samples []sample) string {
	var w strings.Builder
	for _, name := range b.proxies {
		if rs := ratios(name, "nginx", r, samples); len(rs) > 0 && name != "nginx" {
			fmt.Fprintf(&w, "  %-13s to nginx by round    %s\n", name, list(rs))
		}
	}
	if rs := ratios("gatehouse-b", "gatehouse", r, samples); len(rs) > 0 {
		fmt.Fprintf(&w, "  gatehouse-b   to gatehouse, control %s\n", list(rs))
	}
	if rs := ratios("gatehouse", "caddy", r, samples); len(rs) > 0 {
		fmt.Fprintf(&w, "  gatehouse     to caddy by round    %s\n", list(rs))
	}
	return w.String()
}

func list(rs []float64) string {
	var out []string
	for _, r := range rs {
		out = append(out, fmt.Sprintf("%.2f", r))
	}
	return strings.Join(out, " ")
}

// ratios are the CPU per request of name over that of base, of each round that has both.
func ratios(name, base string, r row, samples []sample) []float64 {
	of := map[int]float64{}
	for _, s := range samples {
		if s.proxy == base && s.row == r {
			of[s.round] = s.perRequest()
		}
	}
	var out []float64
	for _, s := range samples {
		if s.proxy == name && s.row == r && of[s.round] > 0 {
			out = append(out, s.perRequest()/of[s.round])
		}
	}
	return out
}

// versionsOf asks each program what it is.
func (b *bench) versionsOf(ctx context.Context) []string {
	ask := func(args ...string) string {
		out, _ := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput() // wrk -v exits with 1
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return first
	}
	var v []string
	for _, p := range b.proxies {
		switch p {
		case "gatehouse":
			v = append(v, ask(b.gatehouse, "version"))
		case "nginx":
			v = append(v, ask("nginx", "-v"))
		case "haproxy":
			v = append(v, ask("haproxy", "-v"))
		case "caddy":
			v = append(v, "Caddy "+moduleVersion(b.caddy, "github.com/caddyserver/caddy/v2"))
		case "reverseproxy":
			v = append(v, "httputil.ReverseProxy of "+runtime.Version())
		}
	}
	return append(v, ask("wrk", "-v"), ask("go", "version"))
}

// moduleVersion reads the version of a module from a Go binary that was built with it.
func moduleVersion(binary, module string) string {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return "unknown"
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == module {
			return m.Version + " with " + info.GoVersion
		}
	}
	return "unknown"
}
