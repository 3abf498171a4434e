package policy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/limiter"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// Env is what a step may use of the world when it is compiled. Every field but Target may be missing: then a spec is compiled to find
// its faults, or to explain, and what is missing is not asked. A zero Env is one in which nothing runs.
type Env struct {
	Target string            // the object the step is attached to, for messages
	Refs   map[string]string // field path -> handle, as translate resolved them
	At     string            // prefix of the paths in Refs: see In
	Secret SecretStore
	Live   LiveStore
	Call   Caller
	Keys   KeyStore
	// Limiter counts. nil: nothing is counted, and every limit passes.
	Limiter Limiter
	// Sources are the objects that wrote the fields of the spec, by path; "" wrote the rest: see Source.
	Sources map[string]string
	// Country is the ISO 3166-1 code of an address's country, "" if it is not known; false: there is no database that could know. nil: likewise.
	Country func(netip.Addr) (code string, ok bool)
}

// In returns an Env for what stands below a field: its Ref takes paths relative to that.
func (e Env) In(path string) Env {
	e.At += path + "."
	return e
}

// Ref is the handle of a reference, "" if there is none.
func (e Env) Ref(path string) string { return e.Refs[e.At+path] }

// Source is the object that wrote a field: "RateLimitPolicy shop/orders".
func (e Env) Source(path string) string {
	if s, ok := e.Sources[path]; ok {
		return s
	}
	return e.Sources[""]
}

// Material is the secret material of a reference, nil when it is not there.
func (e Env) Material(path string) *secret.Material {
	h := e.Ref(path)
	if h == "" || e.Secret == nil {
		return nil
	}
	return e.Secret.Lookup(h)
}

// Open is Env.Live.Open for a type: the running value of a key, or what open makes. Without a LiveStore the value is made and nothing
// runs.
func Open[T any](e Env, key string, open func() (v T, run func(Work))) T {
	if e.Live == nil {
		v, _ := open()
		return v
	}
	return e.Live.Open(key, func() (any, func(Work)) { return open() }).(T)
}

// SecretStore gives secret material by handle, nil when it is not there. It is asked at each use: material is swapped
// without a rebuild.
type SecretStore interface {
	Lookup(handle string) *secret.Material
}

// LiveStore holds values that outlive snapshots: keys fetched from elsewhere, caches of tokens.
type LiveStore interface {
	// Open returns the running value of a key, or what open makes. The value is held until the last exchange of the last snapshot
	// that opened it is over, and a little longer. run, if not nil, runs beside it until then.
	Open(key string, open func() (v any, run func(Work))) any
}

// Work is what the background work of a Live value may use.
type Work struct {
	context.Context // over when nobody holds the value
	Now             func() time.Time
	// Sleep waits for d, or until a value comes from wake (which may be nil); false: the work is over.
	Sleep func(d time.Duration, wake <-chan struct{}) bool
}

// Caller asks servers outside of the data path: key sets, introspection, authorisation services. It blocks: only Verdict.Wait and Live
// work may use it.
type Caller interface {
	// Call sends one request and returns the whole response. It never follows a redirect, never sends to an address where backends may
	// not lie, and gives up after Timeout (0: 5 s) or Max bytes of body (0: 1 MiB): ErrTooLarge then.
	Call(ctx context.Context, c *Call) (*Reply, error)
}

// Call is a request to a server outside.
type Call struct {
	Method  string // "" GET
	URL     string // of http or https; with a Cluster only its path and query count, and its host as Host
	Cluster string // handle of the cluster whose endpoints are asked; "": the URL's host
	HTTP2   bool   // HTTP/2 with prior knowledge, also in clear text (gRPC)
	Header  http.Header
	Body    []byte
	Timeout time.Duration
	Max     int64
}

// Reply is the answer to a Call.
type Reply struct {
	Status          int
	Header, Trailer http.Header
	Body            []byte
}

// ErrTooLarge is what Call returns for a body that is longer than it may be.
var ErrTooLarge = errors.New("the response is too large")

// Limiter counts requests under keys; see package limiter, whose type it is.
type Limiter interface {
	Decide(now time.Time, asks []limiter.Ask, out []limiter.Answer) bool
	DecideStrict(ctx context.Context, now time.Time, asks []limiter.Ask, out []limiter.Answer) bool
	Charge(now time.Time, a limiter.Ask)
	Refund(now time.Time, a limiter.Ask)
	Release(a limiter.Ask)
	// Durable says that there is a quota, whose counts are to survive restarts: nothing is read or written for them before. It waits
	// for the first reading, a second at most; no hook calls it.
	Durable()
}

// KeyStore opens the store of issued keys, which nothing opens before a policy asks for it.
type KeyStore interface {
	Open() Keys
}

// Keys finds the keys that Gatehouse issued and did not revoke. It never blocks.
type Keys interface {
	// Lookup returns the key whose text has this SHA-256, unless it is not valid at the time now.
	Lookup(hash *[32]byte, now time.Time) (IssuedKey, bool)
	// Ready reports whether all keys were read once. Before that nothing can be said about a key that is not found.
	Ready() bool
}

// IssuedKey is what is known of an issued key. Its parts are shared: nobody changes them.
type IssuedKey struct {
	ID, Application, Env string
	Scopes               []string
}

// Modes of a rule, a limit or a step.
const (
	Enforce  = "Enforce" // and ""
	Shadow   = "Shadow"  // decides, counts and logs, and lets pass
	Disabled = "Disabled"
)

// CheckMode returns a fault at path for a text that is no mode.
func CheckMode(path, mode string) error {
	switch mode {
	case "", Enforce, Shadow, Disabled:
		return nil
	}
	return &diag.Problem{Path: path, Msg: fmt.Sprintf("%q is not a mode", mode), Hint: "write Enforce, Shadow or Disabled"}
}
