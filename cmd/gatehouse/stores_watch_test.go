package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/database"
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// TestStoresThatAreMissing: who writes a limit that needs a store, and names none, is told so once.
func TestStoresThatAreMissing(t *testing.T) {
	step := &ir.Step{Name: "limit", Spec: ir.RawJSON(`{"a":{"scope":"Shared"},"b":{"quota":{"limit":1,"window":"Day"}},"c":{},"d":{"scope":"Shared","mode":"Disabled"}}`),
		Sources: map[string]ir.Source{"": {Kind: "RateLimitPolicy", Namespace: "shop", Name: "p"}, "b": {Kind: "RateLimitPolicy", Namespace: "edge", Name: "q"}}}
	config := func() *ir.Config {
		return &ir.Config{Hosts: []*ir.Host{{Routes: []*ir.Route{{Steps: []*ir.Step{step}}, {Steps: []*ir.Step{step}}}}}}
	}
	var log bytes.Buffer
	s := &stores{log: slog.New(slog.NewTextHandler(&log, nil)), seen: map[*ir.Step]bool{}, told: map[string]bool{}}
	s.watch(nil)
	s.watch(config())
	s.watch(config())
	again := *step
	step = &again
	s.watch(config())
	text := log.String()
	if n := strings.Count(text, "level=WARN"); n != 2 || !strings.Contains(text, `policy="RateLimitPolicy shop/p" limit=a`) ||
		!strings.Contains(text, `policy="RateLimitPolicy edge/q" limit=b`) {
		t.Errorf("logged %d warnings, want one for a and one for b:\n%s", n, text)
	}
	log.Reset()
	s = &stores{log: s.log, redis: true, lazy: database.NewLazy(database.Options{}), seen: map[*ir.Step]bool{}, told: map[string]bool{}}
	s.watch(config())
	if log.Len() > 0 {
		t.Errorf("with both stores: %s", log.String())
	}
}
