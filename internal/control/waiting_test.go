package control

import (
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/feed"
)

// TestReportsThatAreNotFinalDoNotPile: while the body of a Secret is missing, any number of changes leaves nothing behind, and what
// was final before is still told.
func TestReportsThatAreNotFinalDoNotPile(t *testing.T) {
	v := newLive()
	first := diag.NewReport(&diag.Object{Ref: diag.Ref{Kind: "Gateway", Namespace: "shop", Name: "g"}})
	v.published(first, feed.State{ConfigVersion: 1}, true)
	for i := range 100 {
		v.published(diag.NewReport(), feed.State{ConfigVersion: uint64(i + 1)}, false)
	}
	if len(v.waiting) != 1 {
		t.Errorf("%d conclusions wait, want 1", len(v.waiting))
	}
	v.acked(feed.Ack{ConfigVersion: 1})
	if v.report.Object(diag.Ref{Kind: "Gateway", Namespace: "shop", Name: "g"}) == nil {
		t.Error("what was final is not told")
	}
}
