package authn

import (
	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/fact"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/external"
)

// FilterName is the name of the step of the HTTPRoute filter ExternalAuth.
const FilterName = "externalAuth"

// Filter describes the HTTPRoute filter ExternalAuth (GEP-1494): an authentication of its own, whose one method is external. It runs in the
// phase authenticate, behind what policies ask for, and both have to let a request pass.
func Filter() policy.Step {
	return policy.Step{
		Name:    FilterName,
		Sources: []policy.Source{{Filter: "ExternalAuth"}},
		Phase:   func(policy.Spec) policy.Phase { return policy.Authenticate },
		New:     func() policy.Spec { return &filter{} },
		Refs:    func(s policy.Spec) []policy.Ref { return external.Refs(&s.(*filter).ExternalAuth) },
		Facts: func(policy.Spec) []fact.Fact {
			return []fact.Fact{{Effect: "requires", Object: "identity"}, {Effect: "accepts", Object: "credential", Value: "external"}}
		},
	}
}

// filter is the JSON of the filter's field externalAuth, which is that of the method without its own extras.
type filter struct{ v1alpha1.ExternalAuth }

// Compile checks the filter as it would the method.
func (f *filter) Compile(env policy.Env) (policy.Handler, error) {
	h, err := external.Compile("external", &f.ExternalAuth, env)
	if err != nil {
		return policy.Handler{}, err
	}
	c := &chain{methods: []entry{{Handler: h, name: "external"}}, keeps: true}
	c.seal()
	return policy.Handler{Request: c.request, Response: c.response, Identity: h.Fields, Body: h.Body, ReadsPath: h.ReadsPath}, nil
}
