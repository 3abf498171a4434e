//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-io/gatehouse/bench/lab"
)

// What policies cost: Gatehouse alone, with other policies on the measured route. Every request carries the same credentials, so that all
// parse the same heads; plain-b is plain once more, as a control.
var policySets = []string{"plain", "key", "key-limit", "jwt", "cel", "cel-loop", "plain-b"}

const benchKey = "bench-key-of-an-application"

// credentials are what each request of the measurement carries, and what the policies accept.
type credentials struct{ token, jwks string }

func newCredentials() (*credentials, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	claims, err := json.Marshal(map[string]any{"iss": "https://idp.bench.example", "aud": "orders", "sub": "bench", "azp": "bench-app",
		"scope": "orders:read orders:write", "exp": time.Now().Add(24 * time.Hour).Unix()})
	if err != nil {
		return nil, err
	}
	signed := b64([]byte(`{"alg":"EdDSA","typ":"JWT","kid":"1"}`)) + "." + b64(claims)
	return &credentials{
		token: signed + "." + b64(ed25519.Sign(private, []byte(signed))),
		jwks:  fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","alg":"EdDSA","use":"sig","x":"%s"}]}`, b64(public)),
	}, nil
}

// headers are those that wrk sends.
func (c *credentials) headers() []string {
	return []string{"X-API-Key: " + benchKey, "Authorization: Bearer " + c.token}
}

// yaml is a set of policies for the measured Ingress.
func (c *credentials) yaml(set string, s site) string {
	ingress := fmt.Sprintf("route-%d", slices.Index(s.hosts(), measuredHost))
	policy := func(kind, defaults string) string {
		return fmt.Sprintf(`---
apiVersion: gatehouse.dev/v1alpha1
kind: %s
metadata: {name: bench, namespace: bench}
spec:
  targetRefs: [{group: networking.k8s.io, kind: Ingress, name: %s}]
  defaults:
%s`, kind, ingress, defaults)
	}
	key := fmt.Sprintf(`---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: bench}
stringData: {app: %s}
`, benchKey) + policy("AuthPolicy", `    authentication: {methods: [{name: key, apiKey: {secretRefs: [{name: keys}]}}]}
`)
	switch set {
	case "key":
		return key
	case "key-limit":
		return key + policy("RateLimitPolicy", `    limits:
      per-application: {key: [identity.application], rates: [{limit: 1000000000, period: 1s}]}
`)
	case "jwt":
		return policy("AuthPolicy", fmt.Sprintf(`    authentication:
      methods:
      - name: token
        jwt: {issuers: [{issuer: "https://idp.bench.example", audiences: [orders], jwks: {inline: '%s'}}]}
`, c.jwks))
	case "cel":
		return policy("AuthPolicy", `    authorization:
      rules:
        readers: {when: 'request.path.startsWith("/api")', require: {cel: 'request.method in ["GET", "HEAD"] && request.headers["x-api-key"] != ""'}}
        hosts: {deny: {cel: 'request.host.endsWith(".internal") || identity.application == "old"'}}
`)
	case "cel-loop":
		return policy("AuthPolicy", `    authorization:
      rules:
        loops: {require: {cel: 'request.path.split("/").exists(p, p == "orders")'}}
`)
	}
	return ""
}

// measurePolicies goes through all rounds as measureAll does, at the first number of connections, without TLS.
func (b *bench) measurePolicies(ctx context.Context) ([]sample, error) {
	c, err := newCredentials()
	if err != nil {
		return nil, err
	}
	b.site.credentials = c
	defer func() { b.site.credentials = nil }()
	r := row{connections: b.connections[0]}
	var samples []sample
	for round := range b.rounds {
		order := slices.Clone(policySets)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, name := range order {
			s, err := b.measure(ctx, name, r, round)
			if err != nil {
				return nil, fmt.Errorf("measuring %s, round %d: %w", name, round+1, err)
			}
			fmt.Fprintf(b.log, "round %d, policies: %s %.2f us/request, %.0f requests/s\n", round+1, name, s.perRequest(), float64(s.requests)/s.span.Seconds())
			samples = append(samples, s)
		}
	}
	return samples, nil
}

// policiesReport says what each set costs beside plain, by round.
func policiesReport(b *bench, samples []sample) string {
	if len(samples) == 0 {
		return ""
	}
	var w bytes.Buffer
	r := samples[0].row
	fmt.Fprintf(&w, "\nwhat policies cost: Gatehouse, %v; every request carries an API key and a token\n\n", r)
	t := tabwriter.NewWriter(&w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "POLICIES\tCPU us/req\tx plain\t(min-max)\t+us\trequests/s\tothers %%\tp99 ms\t\n")
	for _, name := range policySets {
		var cpu, more, rate, others, p99 []float64
		for _, s := range samples {
			if s.proxy != name {
				continue
			}
			cpu = append(cpu, s.perRequest())
			rate = append(rate, float64(s.requests)/s.span.Seconds())
			others = append(others, 100*s.others.Seconds()/s.span.Seconds())
			p99 = append(p99, s.p99.Seconds()*1000)
			for _, o := range samples {
				if o.proxy == "plain" && o.round == s.round {
					more = append(more, s.perRequest()-o.perRequest())
				}
			}
		}
		rs := ratios(name, "plain", r, samples)
		fmt.Fprintf(t, "%s\t%.2f\t%.3f\t%.2f-%.2f\t%+.2f\t%.0f\t%.0f\t%.2f\t\n", name, lab.Median(cpu), lab.Median(rs), slices.Min(rs), slices.Max(rs),
			lab.Median(more), lab.Median(rate), lab.Median(others), lab.Median(p99))
	}
	_ = t.Flush() // to a buffer
	for _, name := range policySets[1:] {
		fmt.Fprintf(&w, "  %-10s to plain by round    %s\n", name, list(ratios(name, "plain", r, samples)))
	}
	fmt.Fprintf(&w, "  key: %s; key-limit: that and one local rate by application; jwt: an EdDSA token, remembered; cel: %s\n",
		"an API key from a Secret", "two rules; cel-loop: one with a loop over the path, which runs in the interpreter")
	return strings.TrimRight(w.String(), "\n") + "\n"
}
