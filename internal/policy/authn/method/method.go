// Package method is the contract between the step authn and its methods: what a method says about one request. A method decides and
// does nothing else: it never blocks (what has to wait does so in Outcome.Wait), writes no answer of its own unless it logs somebody
// in, and changes the request only once the caller is let in.
package method

import (
	"context"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// State is what a method makes of a request.
type State uint8

// The states, from the least to the most said.
const (
	Absent      State = iota // there is no credential of this method
	Accepted                 // there is one, and it is good
	Refused                  // there is one, and it is not
	Unavailable              // there is one, and it cannot be judged now: 503 unless another method accepts
	Answered                 // the method itself answers: a login, a callback
	Waiting                  // Outcome.Wait has to run first
)

// Outcome is what a method says. The zero value is Absent.
type Outcome struct {
	State State
	// Reason is the stable word for Refused and Unavailable: "token_expired", "jwks_unavailable".
	Reason string
	// Detail is for explain and the log, never for the client, and never holds a credential.
	Detail string
	// Identity of an accepted caller; its parts may be shared and are never changed. Without a Method it gets the name of the method.
	Identity exchange.Identity
	// Params are parameters that a refusal adds to the method's challenge: `error="invalid_token"`.
	Params string
	// Header are fields that go to the backend, in the place of any with their names. Handler.Fields has to name them. One whose Value is
	// nil only takes those of its name away; it needs no name there. Nor does Authorization, which is the client's own elsewhere: a session's
	// access token takes its place.
	Header []exchange.Field
	// Answer is what the client gets, with Answered.
	Answer policy.Verdict
	// Cookies are whole Set-Cookie values that go with the answer, whoever makes it, once the caller is let in.
	Cookies [][]byte
	// Wait, with Waiting, is Verdict.Wait: it runs where waiting is allowed and touches no Exchange; what it returns runs on the
	// exchange's owner. It may return Waiting again.
	Wait func(context.Context) func(*exchange.Exchange) Outcome
	// Asks says whom Wait asks: "https://idp.example/introspect". An exchange that is only explained is told that.
	Asks string
}

// Handler is one compiled method.
type Handler struct {
	// Authenticate looks for the credential and judges it. It runs at most once for each exchange.
	Authenticate func(*exchange.Exchange) Outcome
	// Admit, if not nil, runs on a request that is let in, whichever method let it in: it takes the credential of this method out, so
	// that no backend sees it.
	Admit func(*exchange.Exchange)
	// Challenge is the method's member of WWW-Authenticate (RFC 9110 section 11.6.1): `Bearer realm="orders"`; "": it has none.
	Challenge string
	// Fields names the request header fields that Outcome.Header may hold. The client's own are gone before Authenticate runs.
	Fields []string
	// QuerySecrets names the query parameters in which the credential may stand: see policy.Handler.
	QuerySecrets []string
	// Anyone says that everybody is accepted: that says nothing about a credential which another method refused.
	Anyone bool
	// Body is how many bytes of the request body have to be there first, whole; 0: none.
	Body int64
	// ReadsPath says that what is judged includes the path: then odd spellings of one are refused on the whole host.
	ReadsPath bool
	// ClientCertificate says that clients have to be asked for a certificate.
	ClientCertificate bool
}

// Refuse is a Refused outcome.
func Refuse(reason, detail string) Outcome {
	return Outcome{State: Refused, Reason: reason, Detail: detail}
}

// InvalidToken is a Refused outcome with the error of RFC 6750 section 3.1.
func InvalidToken(reason, detail string) Outcome {
	return Outcome{State: Refused, Reason: reason, Detail: detail, Params: `error="invalid_token"`}
}
