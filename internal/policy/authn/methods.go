package authn

import (
	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/apikey"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/basic"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/external"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/hmac"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/introspection"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/jwt"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/mtls"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/oidc"
)

// compileMethod compiles the one method that m holds; field is its field, which the paths of an error are relative to.
func compileMethod(m *v1alpha1.AuthenticationMethod, env policy.Env) (field string, h method.Handler, err error) {
	field = kindOf(m)
	env = env.In(field)
	switch {
	case field == "":
		return "", h, &diag.Problem{Msg: "sets not exactly one method", Hint: "write one of apiKey, jwt, introspection, oidc, basic, hmac, mtls, external and anonymous"}
	case m.APIKey != nil:
		h, err = apikey.Compile(m.Name, m.APIKey, env)
	case m.Introspection != nil:
		h, err = introspection.Compile(m.Name, m.Introspection, env)
	case m.External != nil:
		h, err = external.Compile(m.Name, m.External, env)
	case m.Basic != nil:
		h, err = basic.Compile(m.Name, m.Basic, env)
	case m.HMAC != nil:
		h, err = hmac.Compile(m.Name, m.HMAC, env)
	case m.JWT != nil:
		h, err = jwt.Compile(m.Name, m.JWT, env)
	case m.MTLS != nil:
		h, err = mtls.Compile(m.Name, m.MTLS, env)
	case m.OIDC != nil:
		h, err = oidc.Compile(m.Name, m.OIDC, env)
	case m.Anonymous != nil:
		h = anonymous(m.Name)
	default:
		err = &diag.Problem{Msg: "is not supported yet"}
	}
	return field, h, err
}

// methodRefs lists what a method refers to; paths begin with its field.
func methodRefs(m *v1alpha1.AuthenticationMethod) []policy.Ref {
	var out []policy.Ref
	switch {
	case m.APIKey != nil:
		out = apikey.Refs(m.APIKey)
	case m.Introspection != nil:
		out = introspection.Refs(m.Introspection)
	case m.External != nil:
		out = external.Refs(m.External)
	case m.Basic != nil:
		out = basic.Refs(m.Basic)
	case m.HMAC != nil:
		out = hmac.Refs(m.HMAC)
	case m.JWT != nil:
		out = jwt.Refs(m.JWT)
	case m.MTLS != nil:
		out = mtls.Refs(m.MTLS)
	case m.OIDC != nil:
		out = oidc.Refs(m.OIDC)
	}
	for i := range out {
		out[i].Path = kindOf(m) + "." + out[i].Path
	}
	return out
}

// kindOf is the field of a method that is set, "" unless it is exactly one.
func kindOf(m *v1alpha1.AuthenticationMethod) string {
	kind, n := "", 0
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"apiKey", m.APIKey != nil}, {"jwt", m.JWT != nil}, {"introspection", m.Introspection != nil}, {"oidc", m.OIDC != nil},
		{"basic", m.Basic != nil}, {"hmac", m.HMAC != nil}, {"mtls", m.MTLS != nil}, {"external", m.External != nil},
		{"anonymous", m.Anonymous != nil},
	} {
		if f.set {
			kind = f.name
			n++
		}
	}
	if n != 1 {
		return ""
	}
	return kind
}

// anonymous accepts everybody.
func anonymous(name string) method.Handler {
	return method.Handler{Anyone: true, Authenticate: func(*exchange.Exchange) method.Outcome {
		return method.Outcome{State: method.Accepted, Identity: exchange.Identity{Method: name}}
	}}
}
