package kube

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// policyRemoved is the reason of an Event.
const policyRemoved = "PolicyRemoved"

// mostNamed is how many routes an Event names.
const mostNamed = 10

// guards says whether a kind's policies refuse requests.
func guards(kind string) bool {
	return kind == "ProtectionPolicy" || kind == "AuthPolicy" || kind == "RateLimitPolicy"
}

// opened tells each target that a guard is no longer attached to: was is what was concluded about the policy, o what is now, nil if it is
// gone. A policy that was faulty counts, since it had closed its target. Whether something else still closes it is not looked at.
func (e *events) opened(o, was *diag.Object, now *diag.Report) {
	if e == nil || was == nil || !was.Ours || !guards(was.Ref.Kind) {
		return
	}
	for i, p := range was.Parents {
		if !acts(p) || o != nil && attachedTo(o.Parents, p) || attachedTo(was.Parents[:i], p) {
			continue
		}
		if p.Ref.Kind != "IngressClass" && e.c.source.object(objects.Key{Kind: p.Ref.Kind, Namespace: p.Ref.Namespace, Name: p.Ref.Name}) == nil {
			continue // the target is gone too
		}
		e.recorder.Event(e.object(p.Ref), corev1.EventTypeWarning, policyRemoved, removedText(was.Ref, p, o == nil, routesOf(p, now)))
	}
}

// acts says whether a policy did something at a target.
func acts(p diag.Parent) bool {
	c := diag.Find(p.Conditions, "Accepted")
	return c != nil && (c.Status || c.Reason == "Invalid")
}

// attachedTo says whether a policy acts at a target.
func attachedTo(parents []diag.Parent, to diag.Parent) bool {
	return slices.ContainsFunc(parents, func(p diag.Parent) bool { return p.Ref == to.Ref && p.SectionName == to.SectionName && acts(p) })
}

func removedText(policy diag.Ref, at diag.Parent, deleted bool, routes []string) string {
	what := "no longer attached"
	if deleted {
		what = "deleted"
	}
	text := fmt.Sprintf("%s is %s: what it refused here may pass", policy, what)
	if at.SectionName != "" {
		text = fmt.Sprintf("%s is %s: what it refused at %s may pass", policy, what, at.SectionName)
	}
	if len(routes) == 0 {
		return text
	}
	more := ""
	if n := len(routes) - mostNamed; n > 0 {
		routes, more = routes[:mostNamed], fmt.Sprintf(" and %d more", n)
	}
	return text + ", on " + strings.Join(routes, ", ") + more
}

// routesOf lists the routes that a Gateway serves, or one listener of it, sorted.
func routesOf(gateway diag.Parent, r *diag.Report) []string {
	if gateway.Ref.Kind != "Gateway" {
		return nil
	}
	var out []string
	for o := range r.All() {
		if o.Ref.Kind == "HTTPRoute" && slices.ContainsFunc(o.Parents, func(p diag.Parent) bool {
			c := diag.Find(p.Conditions, "Accepted")
			return p.Ref == gateway.Ref && c != nil && c.Status && (p.SectionName == "" || gateway.SectionName == "" || p.SectionName == gateway.SectionName)
		}) {
			out = append(out, o.Ref.String())
		}
	}
	slices.Sort(out)
	return out
}
