package diag

import (
	"errors"
	"testing"
)

func TestUnder(t *testing.T) {
	err := errors.Join(&Problem{Path: "a", Msg: "is odd", Hint: "write 2"}, errors.Join(&Problem{Path: "[1]", Msg: "is late"}), errors.New("and more"))
	got := Problems("", Under("spec.x", err))
	want := []Problem{{Path: "spec.x.a", Msg: "is odd", Hint: "write 2"}, {Path: Join("spec.x", "[1]"), Msg: "is late"}, {Path: "spec.x", Msg: "and more"}}
	if len(got) != len(want) {
		t.Fatalf("%d problems, want %d: %v", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %+v, want %+v", i, got[i], want[i])
		}
	}
}
