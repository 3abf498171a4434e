// Package policy is the contract between the edge and its policies. A policy is a Step: what it is called, where users
// write it, in which phase it runs, and how its spec is merged and compiled to hooks. Every fault in a
// spec is found when it is compiled; a hook only decides. No hook blocks: what has to wait does so in Verdict.Wait.
package policy

import (
	"context"
	"encoding/json"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/fact"
)

// Phase is a fixed place in the life of an exchange. Steps run in the order of their phases.
type Phase uint8

// The phases in which steps run, in their order.
const (
	Protect Phase = iota
	LimitEarly
	Authenticate
	Authorise
	Limit
	Validate
	TransformRequest
	Cache
	Balance
	TransformResponse
)

var phaseNames = [...]string{"protect", "limit early", "authenticate", "authorise", "limit", "validate",
	"transform request", "cache", "balance and forward", "transform response"}

func (p Phase) String() string { return phaseNames[p] }

// ParsePhase is the inverse of String.
func ParsePhase(s string) (Phase, bool) {
	for i, n := range phaseNames {
		if n == s {
			return Phase(i), true
		}
	}
	return 0, false
}

// Source is a place where users write a step: a field of a policy kind, or a filter of a route.
type Source struct {
	Kind   string // "ProtectionPolicy"; empty for a filter
	Field  string // "sizes"
	Filter string // an HTTPRoute filter's type, "RequestHeaderModifier"; its spec is the JSON of that filter's own field
}

// Step describes one policy. It is a value in builtin's ordered list.
type Step struct {
	Name    string // "headers": also the folder below policy/
	Sources []Source
	// Phase says where a spec runs; the spec is one that New made.
	Phase func(Spec) Phase
	// New returns an empty spec to decode JSON into.
	New func() Spec
	// Refs lists the references in a spec to secrets, clusters and data, by field path; nil: none.
	Refs func(Spec) []Ref
	// Merge makes one spec of those attached at several levels, the outermost first; nil: they do not merge, each runs. Origins says
	// which layer wrote a field of the result; a field that is not in it, and whose parents are not, is Strongest's.
	Merge func(layers []Layer) (merged Spec, origins Origins)
	// EveryAnswer says that the Response hook holds for every answer, whichever step or failure it comes from: the step stands before
	// all others, and one of a listener also sees answers to requests that match no route. It has no Request hook.
	EveryAnswer bool
	// Answers says that no request gets past the step: a rule with it needs no backend.
	Answers bool
	// Enforces says whether a spec does more than look on (mode Shadow); nil: it always does.
	Enforces func(Spec) bool
	// Facts tells the audit what a spec does; nil: nothing that can repeat or contradict.
	Facts func(Spec) []fact.Fact
}

// Spec is a step's configuration. Its JSON shape is that of the place where users write it.
type Spec interface {
	// Compile checks the spec and returns its hooks. A fault is a *diag.Problem, or several joined by errors.Join; its
	// path is relative to the spec.
	Compile(Env) (Handler, error)
}

// Decode decodes raw into a new spec of the step. A field that the spec does not know is ignored: the CRD's schema refuses those.
func (s *Step) Decode(raw []byte) (Spec, error) {
	spec := s.New()
	if err := json.Unmarshal(raw, spec); err != nil {
		return nil, err
	}
	return spec, nil
}

// Ref is a reference from a spec to something outside it.
type Ref struct {
	Path      string // "secretRef"
	Group     string
	Kind      string // "Secret", "Service", "Backend", "ConfigMap"
	Namespace string // empty: that of the object
	Name      string
	Port      int32
}

// Handler is a compiled step. A nil hook is not called. Hooks run on the exchange's owner, one at a time.
type Handler struct {
	// Request runs when the head is there and no backend is chosen yet.
	Request func(*exchange.Exchange) Verdict
	// Response runs before any head goes to the client, the edge's own answers included, in reverse order of Request, for
	// the steps whose Request ran (or that have none and come before the one that decided).
	Response func(*exchange.Exchange) Verdict
	// RequestData and ResponseData see body bytes stream past and return what goes on instead; end marks the last call. The
	// returned slice may be p, or the step's own room, valid until its next call.
	RequestData  func(x *exchange.Exchange, p []byte, end bool) ([]byte, Verdict)
	ResponseData func(x *exchange.Exchange, p []byte, end bool) ([]byte, Verdict)
	// Done runs exactly once for each exchange for which Request ran, also after an abort.
	Done func(*exchange.Exchange)
	// Body and ResponseBody are how many bytes of body must be there before Request (Response) runs; a body over it is
	// answered 413 (502 response_too_large). 0: none needed.
	Body, ResponseBody int64
	// Identity names the request header fields in which the step tells a backend who calls. On every route of the listener the
	// client's own fields of these names are gone before the first hook runs, in every spelling, from trailers too.
	Identity []string
	// QuerySecrets names the query parameters in which clients send the step credentials. On every route of the listener the access log has
	// no value of theirs, whatever becomes of the request.
	QuerySecrets []string
	// ReadsPath says that the decision can depend on the path: then odd spellings of one are refused on the whole host.
	ReadsPath bool
	// ClientCertificate says that the listener has to ask clients for a certificate, which they may decline.
	ClientCertificate bool
	// KeepsLength says that the data hooks return exactly as many bytes as they were given (they count, or check), so that the
	// length which the head announces stays true.
	KeepsLength bool
}

// Verdict is what a hook decides. The zero Verdict lets the exchange go on.
type Verdict struct {
	Status int    // of the answer, 0: go on
	Reason string // stable word: "ip_not_allowed"
	Detail string // for explain and the log, never for the client
	Header []exchange.Field
	Body   []byte
	// Type is the URI of the problem type (RFC 9457 section 3.1.1), "" about:blank; Members are more members of the problem document, as
	// JSON without the braces.
	Type    string
	Members []byte
	// Shadow says that this answer would be given if the policy were enforced: it is counted and logged, and the exchange goes on.
	Shadow bool
	// Wait, if not nil, runs where waiting is allowed and touches no Exchange (it copies what it needs first); what it
	// returns runs on the exchange's owner, never after an abort.
	Wait func(context.Context) func(*exchange.Exchange) Verdict
}
