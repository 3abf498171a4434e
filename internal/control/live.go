package control

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/translate"
)

// live joins what translate concluded with what the data side acknowledged: a verdict is told once the data side serves what it
// is about, with the binds that failed and the faults that only the data side finds.
type live struct {
	mu      sync.Mutex
	waiting []conclusion // published and not acknowledged, the oldest first
	newest  *conclusion  // of those that are live
	ack     feed.Ack
	bases   map[diag.Ref]*diag.Object // what each amended object was made of
	amended map[diag.Ref]*diag.Object // what acknowledgements add to, by object
	report  *diag.Report              // what is told
	changed chan struct{}             // closed and replaced when report does
	bound   map[diag.Ref]*diag.Object // objects of newest that have sockets
}

// conclusion is one report and the versions that must be live before it is told.
type conclusion struct {
	report          *diag.Report
	config, secrets uint64
}

func newLive() live {
	return live{changed: make(chan struct{}), bases: map[diag.Ref]*diag.Object{}, amended: map[diag.Ref]*diag.Object{}, bound: map[diag.Ref]*diag.Object{}}
}

// Live returns the newest report of which all that it says is live, nil before the first, and a channel that is closed when there
// is a newer one.
func (l *Loop) Live() (*diag.Report, <-chan struct{}) {
	l.live.mu.Lock()
	defer l.live.mu.Unlock()
	return l.live.report, l.live.changed
}

// published takes a report that goes with a state of the feed. One that is not final, because the body of a Secret is still missing,
// is never told: the one that is made when it is there takes its place.
func (v *live) published(r *diag.Report, st feed.State, final bool) {
	if !final {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	c := conclusion{r, st.ConfigVersion, st.SecretsVersion}
	if n := len(v.waiting); n > 0 && v.waiting[n-1].config == c.config && v.waiting[n-1].secrets == c.secrets {
		v.waiting = v.waiting[:n-1]
	}
	v.waiting = append(v.waiting, c)
	v.settle(false)
}

// acked takes an acknowledgement.
func (v *live) acked(a feed.Ack) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ack = a
	v.settle(true)
}

// settle moves on to the newest conclusion that is live and tells what follows from it. fresh says that the acknowledgement is new.
func (v *live) settle(fresh bool) {
	best := -1
	for i, c := range v.waiting {
		if c.config <= v.ack.ConfigVersion && c.secrets <= v.ack.SecretsVersion {
			best = i
		}
	}
	if best < 0 && (v.newest == nil || !fresh) {
		return
	}
	changes := map[diag.Ref]*diag.Object{}
	if best >= 0 {
		c := v.waiting[best]
		v.waiting = slices.Clone(v.waiting[best+1:])
		var old *diag.Report
		if v.newest != nil {
			old = v.newest.report
		}
		for ref, o := range c.report.Since(old) {
			changes[ref] = o
			if o != nil && (len(o.Listeners) > 0 || ref.Kind == "IngressClass") {
				v.bound[ref] = o
			} else {
				delete(v.bound, ref)
			}
		}
		v.newest = &c
	}
	v.amend(changes)
	if len(changes) == 0 && v.report != nil {
		return
	}
	v.report = v.report.With(changes)
	close(v.changed)
	v.changed = make(chan struct{})
}

// amend adds to changes what the acknowledgement says of objects, changed or not.
func (v *live) amend(changes map[diag.Ref]*diag.Object) {
	faults := map[diag.Ref][]diag.Fault{}
	for _, f := range v.ack.Faults {
		f.Object.Group = cmp.Or(f.Object.Group, translate.Group(f.Object.Kind)) // the IR's sources have none
		faults[f.Object] = append(faults[f.Object], f)
	}
	concerned := maps.Clone(v.bound)
	for ref := range faults {
		if o := v.newest.report.Object(ref); o != nil {
			concerned[ref] = o
		}
	}
	for ref := range v.amended { // what was said of it before may no longer hold
		if o := v.newest.report.Object(ref); o != nil {
			concerned[ref] = o
		} else {
			delete(v.amended, ref)
			delete(v.bases, ref)
		}
	}
	for ref, o := range concerned {
		is := withAck(o, v.ack.Listeners, faults[ref])
		was := v.amended[ref]
		switch {
		case is == o && was == nil:
			continue // nothing to add, as before
		case is == o:
			delete(v.amended, ref)
			delete(v.bases, ref)
		case was != nil && v.bases[ref] == o && sameWord(is, was):
			is = was
			if _, ok := changes[ref]; !ok {
				continue
			}
		default:
			v.amended[ref], v.bases[ref] = is, o
		}
		changes[ref] = is
	}
}

// withAck is an object with what the data side says of its listeners and itself; o itself if it says nothing new.
func withAck(o *diag.Object, listeners map[string]feed.ListenerState, faults []diag.Fault) *diag.Object {
	out := *o
	touched := len(faults) > 0
	if touched {
		out.Faults = append(slices.Clone(o.Faults), faults...)
		diag.SortFaults(out.Faults)
		out.Faults = slices.Compact(out.Faults)
		if i := slices.IndexFunc(faults, func(f diag.Fault) bool { return f.Severity == diag.Error }); i >= 0 {
			out.Parents = refused(o.Parents, faults[i])
		}
	}
	problem, served := "", 0
	for i := range o.Listeners {
		l := &o.Listeners[i]
		p := diag.Find(l.Conditions, "Programmed")
		if p == nil || !p.Status {
			continue
		}
		st, known := listeners[l.Key]
		if known && st.Problem == "" {
			served++
			if w := warnings(faults, i); w != "" {
				st.Note = joined(st.Note, w)
			}
			if st.Note == "" {
				continue
			}
		}
		if !touched || &out.Listeners[0] == &o.Listeners[0] {
			out.Listeners = slices.Clone(o.Listeners)
		}
		touched = true
		reason, message := "Pending", "its socket is not open yet"
		switch {
		case known && st.Problem == "":
			out.Listeners[i].Conditions = slices.Clone(l.Conditions)
			diag.Find(out.Listeners[i].Conditions, "Programmed").Message = st.Note
			continue
		case known:
			reason, message = "PortUnavailable", st.Problem
		}
		problem = fmt.Sprintf("listener %s: %s", l.Name, message)
		out.Listeners[i].Conditions = replaced(l.Conditions, "Programmed", reason, message)
	}
	if c := diag.Find(o.Conditions, "Programmed"); problem != "" && served == 0 && c != nil && c.Status {
		out.Conditions = replaced(o.Conditions, "Programmed", "AddressNotUsable", problem)
	}
	if !touched {
		return o
	}
	return &out
}

// warnings is what the data side found about the i-th listener of a Gateway that is served all the same.
func warnings(faults []diag.Fault, i int) (out string) {
	prefix := fmt.Sprintf("spec.listeners[%d].", i)
	for _, f := range faults {
		if f.Severity == diag.Warning && strings.HasPrefix(f.Path, prefix) {
			out = joined(out, f.Text())
		}
	}
	return out
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// refused is the verdicts about a policy or route of which the data side found that it cannot be served.
func refused(parents []diag.Parent, f diag.Fault) []diag.Parent {
	out := slices.Clone(parents)
	for i := range out {
		out[i].Conditions = slices.DeleteFunc(replaced(out[i].Conditions, "Accepted", "Invalid", f.Text()), func(c diag.Condition) bool { return c.Type == "Programmed" })
	}
	return out
}

// replaced is cs with one condition made False.
func replaced(cs []diag.Condition, typ, reason, message string) []diag.Condition {
	out := slices.Clone(cs)
	if c := diag.Find(out, typ); c != nil {
		c.Status, c.Unknown, c.Reason, c.Message = false, false, reason, message
	}
	return out
}

// sameWord says whether two amendments of one object say the same.
func sameWord(a, b *diag.Object) bool {
	eq := func(x, y []diag.Condition) bool { return slices.Equal(x, y) }
	return eq(a.Conditions, b.Conditions) && slices.Equal(a.Faults, b.Faults) &&
		slices.EqualFunc(a.Listeners, b.Listeners, func(x, y diag.Listener) bool { return eq(x.Conditions, y.Conditions) }) &&
		slices.EqualFunc(a.Parents, b.Parents, func(x, y diag.Parent) bool { return eq(x.Conditions, y.Conditions) })
}
