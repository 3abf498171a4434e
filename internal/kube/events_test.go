package kube

import (
	"errors"
	"testing"

	"k8s.io/client-go/tools/record"

	"github.com/gatehouse-io/gatehouse/internal/diag"
)

// testEvents are events that go to the channel of the recorder.
func testEvents(c *Cluster) (*events, *record.FakeRecorder) {
	r := record.NewFakeRecorder(10)
	return &events{c: c, recorder: r, failures: map[failure]string{}}, r
}

// told takes the events that were told.
func told(r *record.FakeRecorder) (out []string) {
	for {
		select {
		case e := <-r.Events:
			out = append(out, e)
		default:
			return out
		}
	}
}

// TestFailureOfAServiceIsToldOnce: what goes well with the status of a Gateway says nothing about its Service.
func TestFailureOfAServiceIsToldOnce(t *testing.T) {
	c := testWatch("Gateway").s.c
	w := newWriter(c)
	ev, recorder := testEvents(c)
	w.ev = ev
	gw := diag.Ref{Group: "gateway.networking.k8s.io", Kind: "Gateway", Namespace: "shop", Name: "public"}
	denied := errors.New("applying Service edge/gh-1: denied")
	ev.failed(gw, ofService, denied)
	w.fast.Add(gw)
	w.fast.ShutDown() // work takes what is there and returns
	w.work(t.Context(), w.fast)
	ev.failed(gw, ofService, denied)
	if got := told(recorder); len(got) != 1 {
		t.Errorf("told %q, want one event", got)
	}
	ev.done(gw, ofService)
	ev.failed(gw, ofService, denied)
	if got := told(recorder); len(got) != 1 || got[0] != "Warning NotWritten "+denied.Error() {
		t.Errorf("told %q after it had gone well, want one event", got)
	}
}

// TestEventOfAFault: an Event says which field, what is wrong and what to write, and only what was not told before.
func TestEventOfAFault(t *testing.T) {
	ev, recorder := testEvents(testWatch("Ingress").s.c)
	old := diag.Fault{Path: "spec.rules[0]", Message: "was wrong before", Reason: "Invalid"}
	o := &diag.Object{Ref: diag.Ref{Group: "networking.k8s.io", Kind: "Ingress", Namespace: "shop", Name: "web"}, Faults: []diag.Fault{
		old, {Path: "spec.rules[1].host", Message: `"a b" is not a host name`, Hint: "write shop.example"},
		{Message: "no more than a warning", Severity: diag.Warning}, {Message: "has no rule", Reason: "NoRules"}}}
	ev.tell(o, &diag.Object{Faults: []diag.Fault{old}})
	got, want := told(recorder), []string{`Warning Invalid spec.rules[1].host: "a b" is not a host name (write shop.example)`, "Warning NoRules has no rule"}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("told %q, want %q", got, want)
	}
}
