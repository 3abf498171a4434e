// Package mtls accepts client certificates that lead to an authority that users name. The handshake proves that a client holds its key,
// and nothing else: chain, time, purpose and names are verified here, for each method against its own authorities. What a certificate
// says is never believed before that.
//
// Bounds: a chain has at most 8 certificates and 64 KiB; verdicts of 4,096 chains are remembered, until the authorities change, the chain
// ends, or, for those that were refused, a minute is over.
package mtls

import (
	"errors"
	"fmt"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

const (
	maxChain = 8
	maxBytes = 64 << 10
)

// Refs lists the objects that hold the authorities.
func Refs(s *v1alpha1.MTLSAuth) []policy.Ref {
	var out []policy.Ref
	for i, r := range s.CACertificateRefs {
		kind := r.Kind
		if kind == "" {
			kind = "ConfigMap"
		}
		out = append(out, policy.Ref{Path: refPath(i), Kind: kind, Name: r.Name})
	}
	return out
}

func refPath(i int) string { return fmt.Sprintf("caCertificateRefs[%d]", i) }

// Compile checks the method.
func Compile(name string, s *v1alpha1.MTLSAuth, env policy.Env) (method.Handler, error) {
	var faults []error
	fault := func(path, msg, hint string) {
		faults = append(faults, &diag.Problem{Path: path, Msg: msg, Hint: hint})
	}
	v := &verifier{method: name}
	if len(s.CACertificateRefs) == 0 {
		fault("caCertificateRefs", "is empty", "name a ConfigMap or Secret whose key ca.crt holds the authorities that are trusted")
	}
	for i, r := range s.CACertificateRefs {
		at := refPath(i)
		if r.Name == "" {
			fault(at+".name", "is empty", "name a ConfigMap or Secret")
		}
		if r.Kind != "" && r.Kind != "ConfigMap" && r.Kind != "Secret" {
			fault(at+".kind", fmt.Sprintf("%q is not supported", r.Kind), "write ConfigMap or Secret")
		}
		v.sources = append(v.sources, method.NewMaterial(env, at))
	}
	for i, n := range s.SubjectAltNames {
		p, problem, hint := newPattern(&n)
		if problem != "" {
			fault(fmt.Sprintf("subjectAltNames[%d]", i), problem, hint)
		}
		v.patterns = append(v.patterns, p)
	}
	h := method.Handler{Authenticate: v.authenticate, ClientCertificate: true}
	if s.CertificateHeader != "" {
		if err := method.IdentityField("certificateHeader", s.CertificateHeader); err != nil {
			faults = append(faults, err)
		}
		v.header = []byte(s.CertificateHeader)
		v.structured = exchange.EqualFold(v.header, "client-cert")
		h.Fields = []string{s.CertificateHeader}
	}
	if len(faults) > 0 {
		return method.Handler{}, errors.Join(faults...)
	}
	return h, nil
}

func (v *verifier) authenticate(x *exchange.Exchange) method.Outcome {
	c := x.Certificate
	switch {
	case c == nil:
		return method.Outcome{}
	case len(c.Chain) > maxChain || c.Size > maxBytes:
		return method.Refuse("certificate_chain_too_long", "more than 8 certificates, or than 64 KiB")
	}
	a := v.current()
	if a == nil {
		return method.Outcome{State: method.Unavailable, Reason: "authorities_unavailable", Detail: "nothing that caCertificateRefs name holds a certificate in ca.crt"}
	}
	now := x.Start.Unix()
	if o := a.remembered(c, now); o != nil {
		return *o
	}
	o, until := v.judge(a, c, x.Start)
	if !x.Dry && o.State != method.Unavailable {
		a.remember(c, &verdict{o, now, until})
	}
	return o
}
