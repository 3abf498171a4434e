//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-io/gatehouse/bench/lab"
)

// report is the result as text for people, and what of it is a fault.
func (s *soak) report(command string) (text string, faults []string) {
	var w bytes.Buffer
	version, _ := exec.Command(s.gatehouse, "version").Output() // an empty one shows
	fmt.Fprintf(&w, `Gatehouse under load and change for %v, %s

machine   %s; load, backends and Gatehouse share it
version   %s
command   %s
load      %s
change    each second a route changed, one added and one removed, one of %d backends replaced; every %d s a certificate;
          %d steady routes
limits    from the second fifth to the last, each gauge's median may rise by a tenth and 20 goroutines, 20 descriptors, 8 MiB; %d goroutines
          and descriptors may be left after the load; no GET may fail, slow or not, and no change stay unseen for %v; of the
          others, which may not be repeated when a backend ends, 1 %%

`, s.length, time.Now().UTC().Format("2006-01-02"), lab.Machine(), strings.TrimSpace(string(version)), command, clients(), pods, rotateEvery,
		steady, spare, visible)
	t := tabwriter.NewWriter(&w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "REQUESTS\tgood\tfailed\tp50 ms\tp99 ms\tlongest ms\t\n")
	faults = append(faults, s.rows(t)...)
	fmt.Fprintf(t, "\t\t\t\t\t\t\nGAUGE\tfifth 1\t2\t3\t4\t5\tbefore\tafter\t\n")
	for i, g := range gauges {
		m := fifths(s.samples, i)
		fmt.Fprintf(t, "%s\t", g.name)
		for _, v := range append(m[:], s.before[i], s.after[i]) {
			fmt.Fprintf(t, "%.0f\t", v/g.unit)
		}
		fmt.Fprintln(t)
		if m[4] > g.limit(m[1]) {
			faults = append(faults, fmt.Sprintf("%s grew from %.0f to %.0f", g.name, m[1]/g.unit, m[4]/g.unit))
		}
		if i != resident && s.after[i] > s.before[i]+spare {
			faults = append(faults, fmt.Sprintf("%s are left after the load: %.0f, before it %.0f", g.name, s.after[i], s.before[i]))
		}
	}
	_ = t.Flush() // to a buffer
	for i := range kinds {
		if r := s.load.tallies[i].reasons(); r != "" {
			fmt.Fprintf(&w, "%s failed: %s\n", kinds[i].name, r)
		}
	}
	for _, f := range faults {
		fmt.Fprintf(&w, "FAULT: %s\n", f)
	}
	return w.String(), faults
}

// rows prints what became of each kind of request and of the changes.
func (s *soak) rows(t *tabwriter.Writer) (faults []string) {
	line := func(name string, a *tally) (good, bad int) {
		good, bad = a.counts()
		ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
		fmt.Fprintf(t, "%s\t%d\t%d\t%.1f\t%.1f\t%.0f\t\n", name, good, bad, ms(a.quantile(0.5)), ms(a.quantile(0.99)), ms(a.longest))
		return good, bad
	}
	for i, k := range kinds {
		good, bad := line(k.name, &s.load.tallies[i])
		if good == 0 || k.strict && bad > 0 || bad*100 > good {
			faults = append(faults, fmt.Sprintf("%s: %d of %d failed: %s", k.name, bad, good+bad, s.load.tallies[i].reasons()))
		}
	}
	for _, c := range []struct {
		name  string
		tally *tally
	}{{"routes seen", &s.changes}, {"certificate seen", &s.rotations}} {
		if good, bad := line(c.name, c.tally); bad > 0 || good == 0 {
			faults = append(faults, fmt.Sprintf("%s: %d times of %d not: %s", c.name, bad, good+bad, c.tally.reasons()))
		}
	}
	return faults
}

// clients names the kinds of clients and their numbers.
func clients() string {
	var out []string
	for _, k := range kinds {
		out = append(out, fmt.Sprintf("%d %s", k.n, k.name))
	}
	return strings.Join(out, ", ") + " clients, every other one over TLS"
}
