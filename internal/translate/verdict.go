package translate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// Names of conditions and reasons that several kinds have.
const (
	accepted      = "Accepted"
	programmed    = "Programmed"
	resolvedRefs  = "ResolvedRefs"
	conflicted    = "Conflicted"
	noConflicts   = "NoConflicts"
	partlyInvalid = "PartiallyInvalid"

	invalid               = "Invalid"
	overridden            = "Overridden"
	partlyProgrammed      = "PartiallyProgrammed"
	pending               = "Pending"
	invalidKind           = "InvalidKind"
	invalidParameters     = "InvalidParameters"
	invalidCertificateRef = "InvalidCertificateRef"
	listenersNotValid     = "ListenersNotValid"
	backendNotFound       = "BackendNotFound"
	targetNotFound        = "TargetNotFound"
	unsupportedValue      = "UnsupportedValue"
)

// annotationPrefix begins the names of our annotations.
const annotationPrefix = "gatehouse.dev/"

// httpsRedirectAnnotation on an Ingress turns the redirect to HTTPS on or off for it.
const httpsRedirectAnnotation = annotationPrefix + "https-redirect"

// verdict collects what is concluded about one object.
type verdict struct {
	*diag.Object
}

func newVerdict(ref diag.Ref, o objects.Object) verdict {
	return verdict{&diag.Object{Ref: ref, Generation: o.GetGeneration()}}
}

func (v verdict) condition(typ string, status bool, reason, message string) diag.Condition {
	return diag.Condition{Type: typ, Status: status, Reason: reason, Message: message, ObservedGeneration: v.Generation}
}

// add appends a condition of the object itself.
func (v verdict) add(typ string, status bool, reason, message string) {
	v.Conditions = append(v.Conditions, v.condition(typ, status, reason, message))
}

// fault adds a fault of the object.
func (v verdict) fault(path, reason, hint, format string, args ...any) {
	v.Faults = append(v.Faults, diag.Fault{
		Object: v.Ref, Path: path, Reason: reason, Hint: hint, Message: fmt.Sprintf(format, args...)})
}

func (v verdict) warn(path, reason, hint, format string, args ...any) {
	v.fault(path, reason, hint, format, args...)
	v.Faults[len(v.Faults)-1].Severity = diag.Warning
}

// annotations warns about annotations of ours that the kind does not have.
func (v verdict) annotations(o objects.Object, known ...string) {
	for _, a := range sortedKeys(o.GetAnnotations()) {
		if strings.HasPrefix(a, annotationPrefix) && !slices.Contains(known, a) {
			v.warn(fmt.Sprintf("metadata.annotations[%s]", a), "", hintFor(a, "there is", known), "unknown annotation")
		}
	}
}

// say makes the verdict known.
func (p *pass) verdict(v verdict) {
	p.say(topic{kind: reportTopic, ref: v.Ref}, v.Object)
}

// report joins everything that was said about one object: its own verdict, and faults that others found.
func (p *pass) report() {
	parts := hearAll[*diag.Object](p, topic{kind: reportTopic, ref: p.u.key.ref})
	switch len(parts) {
	case 0:
		p.gone = true
		return
	case 1:
		p.say(topic{kind: reportSink, ref: p.u.key.ref}, parts[0])
		return
	}
	out := &diag.Object{Ref: p.u.key.ref}
	for _, o := range parts {
		if o.Generation != 0 || o.Conditions != nil || o.Parents != nil || o.Listeners != nil {
			faults := out.Faults
			*out = *o
			out.Faults = faults
		}
		out.Faults = append(out.Faults[:len(out.Faults):len(out.Faults)], o.Faults...)
	}
	diag.SortFaults(out.Faults)
	out.Faults = slices.Compact(out.Faults)
	p.say(topic{kind: reportSink, ref: p.u.key.ref}, out)
}

// text is what is wrong with a field and what to write instead, for conditions.
func text(path, message, hint string) string {
	return diag.Fault{Path: path, Message: message, Hint: hint}.Text()
}
