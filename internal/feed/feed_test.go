package feed_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestVersionsRiseByPart(t *testing.T) {
	var m feed.Memory
	for _, c := range []struct {
		config, endpoints, secrets bool
		want                       [3]uint64
	}{
		{false, false, false, [3]uint64{0, 0, 0}},
		{true, false, false, [3]uint64{1, 0, 0}},
		{false, true, false, [3]uint64{1, 1, 0}},
		{false, true, true, [3]uint64{1, 2, 1}},
		{true, true, true, [3]uint64{2, 3, 2}},
	} {
		_, changed := m.Latest()
		m.Update(func(*feed.State) (bool, bool, bool) { return c.config, c.endpoints, c.secrets })
		if got, want := closed(changed), c.config || c.endpoints || c.secrets; got != want {
			t.Errorf("Update(%v, %v, %v): told %v, want %v", c.config, c.endpoints, c.secrets, got, want)
		}
		s, _ := m.Latest()
		if got := [3]uint64{s.ConfigVersion, s.EndpointsVersion, s.SecretsVersion}; got != c.want {
			t.Errorf("Update(%v, %v, %v): versions %v, want %v", c.config, c.endpoints, c.secrets, got, c.want)
		}
	}
}

func TestPartsNotPublishedStay(t *testing.T) {
	var m feed.Memory
	config := &ir.Config{}
	m.Update(func(s *feed.State) (bool, bool, bool) {
		s.Config, s.Secrets = config, secret.Set{"a": nil}
		return true, false, true
	})
	m.Update(func(s *feed.State) (bool, bool, bool) {
		if s.Config != config {
			t.Error("Update does not see what is published")
		}
		s.Secrets = secret.Set{"b": nil}
		return false, false, true
	})
	s, _ := m.Latest()
	if _, ok := s.Secrets["b"]; s.Config != config || !ok || len(s.Secrets) != 1 {
		t.Errorf("state = %+v", s)
	}
}

// A reader that waits on the channel of its last Latest misses no newest version, and sees none go back.
func TestReaderSeesTheNewest(t *testing.T) {
	const last = 500
	var m feed.Memory
	done := make(chan []uint64)
	for range 3 {
		go func() {
			var seen []uint64
			for {
				s, changed := m.Latest()
				seen = append(seen, s.ConfigVersion)
				if s.ConfigVersion == last {
					done <- seen
					return
				}
				<-changed
			}
		}()
	}
	for range last {
		m.Update(func(*feed.State) (bool, bool, bool) { return true, false, false })
	}
	for range 3 {
		seen := <-done
		for i := 1; i < len(seen); i++ {
			if seen[i] <= seen[i-1] {
				t.Fatalf("version %d after %d", seen[i], seen[i-1])
			}
		}
	}
}

func TestAcknowledge(t *testing.T) {
	var m feed.Memory
	got, acked := m.Acked()
	if d := cmp.Diff(feed.Ack{}, got); d != "" {
		t.Errorf("first ack:\n%s", d)
	}
	if closed(acked) {
		t.Fatal("told of an ack before there was one")
	}
	want := feed.Ack{
		ConfigVersion: 7,
		Listeners:     map[string]feed.ListenerState{"l": {Bound: "127.0.0.1:80"}},
		Faults:        []diag.Fault{{Message: "no such cipher"}},
	}
	m.Acknowledge(feed.Ack{ConfigVersion: 6})
	if !closed(acked) {
		t.Error("not told of the first ack")
	}
	_, acked = m.Acked()
	m.Acknowledge(want)
	if !closed(acked) {
		t.Error("not told of the second ack")
	}
	got, acked = m.Acked()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("ack (-want +got):\n%s", d)
	}
	if closed(acked) {
		t.Error("told of an ack that is not there")
	}
}
