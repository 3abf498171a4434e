package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/gatehouse-io/gatehouse/internal/database"
	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/limiter"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// storeFlags say where run keeps what outlives it.
type storeFlags struct {
	database         *databaseFlags
	redis, redisFile *string
	geoip            *string
}

func (c *call) stores() storeFlags {
	return storeFlags{database: c.databaseFlags(),
		redis:     c.flags.String("redis", "", "redis:// or rediss:// URL of a Redis or Valkey, for limits of scope Shared; other users of the machine can see it"),
		redisFile: c.flags.String("redis-file", "", "file with that URL"),
		geoip:     c.flags.String("geoip", "", "MaxMind database (.mmdb) that tells the country of addresses"),
	}
}

// stores are opened when a policy first asks for them.
type stores struct {
	lazy    *database.Lazy // nil: no database was named
	limiter *limiter.Limiter
	redis   bool // a store of shared limits was named
	geoip   *maxminddb.Reader
	log     *slog.Logger
	warned  sync.Once
	seen    map[*ir.Step]bool // of the configuration that is watched
	told    map[string]bool
}

func newStores(f storeFlags, log *slog.Logger) (*stores, error) {
	s := &stores{log: log, seen: map[*ir.Step]bool{}, told: map[string]bool{}}
	if f.database.given() {
		o, err := f.database.options()
		if err != nil {
			return nil, err
		}
		o.Existing = false
		s.lazy = database.NewLazy(o)
	}
	redis, err := f.redisServer()
	if err != nil {
		return nil, err
	}
	s.redis = *f.redis+*f.redisFile != ""
	o := limiter.Options{Redis: redis}
	if s.lazy != nil {
		o.Ledger = ledger{s.lazy}
	}
	if *f.geoip != "" {
		if s.geoip, err = readCountries(*f.geoip); err != nil {
			return nil, fmt.Errorf("--geoip: %w", err)
		}
	}
	s.limiter = limiter.New(o)
	return s, nil
}

// redisServer reads the flags about the store of shared limits; faults in them are of the command line.
func (f storeFlags) redisServer() (limiter.Redis, error) {
	url, from := *f.redis, "--redis"
	if file := *f.redisFile; file != "" {
		if url != "" {
			return limiter.Redis{}, &usageError{"write --redis or --redis-file, not both"}
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return limiter.Redis{}, fmt.Errorf("--redis-file: %w", err)
		}
		if url, from = strings.TrimSpace(string(b)), "--redis-file"; url == "" {
			return limiter.Redis{}, fmt.Errorf("--redis-file: %s is empty: write the URL into it", file)
		}
	}
	r, err := limiter.ParseRedisURL(url)
	if err != nil {
		return r, &usageError{from + ": " + err.Error()}
	}
	return r, nil
}

// readCountries reads the whole file: one that is mapped into memory ends the process when somebody writes over it, or when it is closed
// under a request.
func readCountries(file string) (*maxminddb.Reader, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r, err := maxminddb.OpenBytes(b)
	if err != nil {
		return nil, fmt.Errorf("%s is no MaxMind database: %w", file, err)
	}
	return r, nil
}

// into hands the stores to the edge.
func (s *stores) into(o *edge.Options) {
	o.Keys, o.Limiter = s, s.limiter
	if s.geoip != nil {
		o.Country = s.country
	}
}

// close writes what was counted, and closes what was opened.
func (s *stores) close() {
	s.limiter.Close()
	if s.lazy != nil {
		if err := s.lazy.Close(); err != nil {
			s.log.Error("closing the database", "err", err)
		}
	}
}

// country asks the MaxMind database.
func (s *stores) country(a netip.Addr) (string, bool) {
	var record struct {
		Country struct {
			ISOCode string `maxminddb:"iso_code"`
		} `maxminddb:"country"`
	}
	if err := s.geoip.Lookup(a).Decode(&record); err != nil {
		return "", false
	}
	return record.Country.ISOCode, true
}

// Open begins to read the issued keys.
func (s *stores) Open() policy.Keys {
	if s.lazy == nil {
		s.warned.Do(func() {
			s.log.Warn("a policy accepts issued keys, and there is no database: its routes answer 503 to them. Write --data DIR or --database-file F")
		})
		return noKeys{}
	}
	return issuedKeys{s.lazy.Keys()}
}

// noKeys is a store that is never there.
type noKeys struct{}

func (noKeys) Lookup(*[32]byte, time.Time) (policy.IssuedKey, bool) { return policy.IssuedKey{}, false }
func (noKeys) Ready() bool                                          { return false }

type issuedKeys struct{ keys *database.Keys }

func (k issuedKeys) Lookup(hash *[32]byte, now time.Time) (policy.IssuedKey, bool) {
	e, ok := k.keys.Lookup(hash, now)
	return policy.IssuedKey{ID: e.ID, Application: e.Application, Env: e.Env, Scopes: e.Scopes}, ok
}

func (k issuedKeys) Ready() bool {
	select {
	case <-k.keys.Ready():
		return true
	default:
		return false
	}
}

// ledger keeps the limiter's quotas in the database.
type ledger struct{ lazy *database.Lazy }

func (l ledger) Load(ctx context.Context) iter.Seq2[limiter.Total, error] {
	return func(yield func(limiter.Total, error) bool) {
		for q, err := range l.lazy.Ledger().LoadQuotas(ctx) {
			if !yield(limiter.Total{Key: q.Key, Start: q.Start, Expires: q.Expires, Count: q.Count}, err) {
				return
			}
		}
	}
}

func (l ledger) Add(ctx context.Context, deltas []limiter.Delta) ([]limiter.Total, error) {
	in := make([]database.QuotaDelta, len(deltas))
	for i, d := range deltas {
		in[i] = database.QuotaDelta{Key: d.Key, Start: d.Start, Expires: d.Expires, N: d.N}
	}
	qs, err := l.lazy.Ledger().AddQuota(ctx, in)
	if err != nil {
		return nil, err
	}
	out := make([]limiter.Total, len(qs))
	for i, q := range qs {
		out[i] = limiter.Total{Key: q.Key, Start: q.Start, Expires: q.Expires, Count: q.Count}
	}
	return out, nil
}

// storeMetrics registers what is counted of limits and keys.
func (p *process) storeMetrics() {
	l := p.stores.limiter
	gauge := func(name, help string, f func() float64) { p.recorder.Gauge(name, help, nil, f) }
	counter := func(name, help string, f func() uint64) {
		p.recorder.Counter(name, help, nil, func() float64 { return float64(f()) })
	}
	gauge("limit_keys", "Keys under which limits count in this process.", func() float64 { return float64(l.Stats().Keys) })
	counter("limit_decisions_total", "Questions to limits that were answered.", func() uint64 { return l.Stats().Decisions })
	counter("limit_evictions_total", "Keys of limits dropped because there were too many.", func() uint64 { return l.Stats().Evicted })
	counter("limit_store_errors_total", "Calls of the store of shared limits that failed or took too long.", func() uint64 { return l.Stats().StoreErrors })
	gauge("limit_store_open", "1 while the store of shared limits is not asked because it does not answer.", func() float64 {
		if l.Stats().StoreOpen {
			return 1
		}
		return 0
	})
	gauge("issued_keys_stale_seconds", "Age of what is known of issued keys, in seconds; 0 while the database answers, and where nobody asks.", func() float64 {
		if p.stores.lazy == nil {
			return 0
		}
		return p.stores.lazy.Stale().Seconds()
	})
}

// watch says once what policies ask of stores that were not named: their limits go on without, which nobody should find out later.
func (s *stores) watch(c *ir.Config) {
	if c == nil {
		return
	}
	before := s.seen
	s.seen = make(map[*ir.Step]bool, len(before))
	for _, h := range c.Hosts {
		for _, r := range h.Routes {
			for _, step := range r.Steps {
				if !strings.HasPrefix(step.Name, "limit") || s.seen[step] {
					continue
				}
				s.seen[step] = true
				if !before[step] {
					s.look(step)
				}
			}
		}
	}
}

func (s *stores) look(step *ir.Step) {
	var limits map[string]struct {
		Scope, Mode string
		Quota       *struct{}
	}
	if json.Unmarshal(step.Spec, &limits) != nil {
		return
	}
	for name, l := range limits {
		by := step.Sources[""].Object()
		if src, ok := step.Sources[name]; ok {
			by = src.Object()
		}
		switch {
		case l.Mode == policy.Disabled:
		case l.Scope == "Shared" && !s.redis:
			if s.first("redis", by, name) {
				s.log.Warn("a limit is Shared, and there is no store: its onStoreFailure decides each time. Write --redis-file F", "policy", by, "limit", name)
			}
		case l.Scope != "Shared" && l.Quota != nil && s.lazy == nil:
			if s.first("database", by, name) {
				s.log.Warn("a quota is to survive restarts, and there is no database: it is counted in memory alone. Write --data DIR or --database-file F",
					"policy", by, "limit", name)
			}
		}
	}
}

// first reports whether nobody was told of this yet.
func (s *stores) first(parts ...string) bool {
	key := strings.Join(parts, " ")
	told := s.told[key]
	s.told[key] = true
	return !told
}
