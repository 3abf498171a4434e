// Package builtin is the ordered list of all steps. The order is documentation: of attached steps in one phase and at one level it
// is the order in which they run.
package builtin

import (
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn"
	"github.com/gatehouse-io/gatehouse/internal/policy/authz"
	"github.com/gatehouse-io/gatehouse/internal/policy/cors"
	"github.com/gatehouse-io/gatehouse/internal/policy/directresponse"
	"github.com/gatehouse-io/gatehouse/internal/policy/errorpages"
	"github.com/gatehouse-io/gatehouse/internal/policy/headers"
	"github.com/gatehouse-io/gatehouse/internal/policy/hsts"
	"github.com/gatehouse-io/gatehouse/internal/policy/invalid"
	"github.com/gatehouse-io/gatehouse/internal/policy/limit"
	"github.com/gatehouse-io/gatehouse/internal/policy/maintenance"
	"github.com/gatehouse-io/gatehouse/internal/policy/mirror"
	"github.com/gatehouse-io/gatehouse/internal/policy/redirect"
	"github.com/gatehouse-io/gatehouse/internal/policy/rewrite"
	"github.com/gatehouse-io/gatehouse/internal/policy/size"
)

// Steps returns all steps, by phase.
func Steps() []policy.Step {
	return []policy.Step{
		// protect
		invalid.Step(), // in the place of a faulty policy: nothing comes before it
		maintenance.Step(),
		cors.Step(), // a preflight has no body and no credentials: it is answered before those are looked at
		size.Step(),
		limit.Early(),
		authn.Step(),
		authn.Filter(),
		authz.Step(),
		limit.Late(),
		// transform request
		headers.Request(),
		rewrite.Step(),
		redirect.Step(),
		directresponse.Step(),
		mirror.Step(), // of what is forwarded, not of what is answered
		// transform response
		headers.Response(),
		// every answer: these stand before all others, and response hooks run backwards, so they have the last word
		errorpages.Step(),
		hsts.Step(),
	}
}
