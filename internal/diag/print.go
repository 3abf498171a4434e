package diag

import (
	"fmt"
	"slices"
	"strings"
)

// StatusText is a report for people: for each object, its listeners and its parents one line with the conditions that are as
// one wishes them, and one line for each other condition, with its reason and message. It ends with a newline unless there is
// nothing to say. Faults are not in it.
func StatusText(r *Report) string {
	var b strings.Builder
	for _, o := range r.Sorted() {
		var at []string
		for _, a := range o.Addresses {
			at = append(at, a.Value)
		}
		more := ""
		if len(at) > 0 {
			more = "at " + strings.Join(at, ", ")
		}
		writeConditions(&b, o.Ref.String(), o.Conditions, more)
		for _, l := range o.Listeners {
			routes := fmt.Sprintf("%d routes", l.AttachedRoutes)
			if l.AttachedRoutes == 1 {
				routes = "1 route"
			}
			writeConditions(&b, o.Ref.String()+" listener "+l.Name, l.Conditions, routes)
		}
		for _, p := range o.Parents {
			scope := o.Ref.String()
			if p.Ref == o.Ref {
				scope += " at itself"
			} else {
				scope += " at " + p.Ref.String()
			}
			if p.SectionName != "" {
				scope += " " + p.SectionName
			}
			if p.Port != 0 {
				scope += fmt.Sprintf(" port %d", p.Port)
			}
			writeConditions(&b, scope, p.Conditions, "")
		}
	}
	return b.String()
}

// Wished says whether all that a report says is as one wishes it.
func Wished(r *Report) bool {
	good := func(cs []Condition) bool {
		return !slices.ContainsFunc(cs, func(c Condition) bool { return !wished(c) })
	}
	for o := range r.All() {
		if !good(o.Conditions) || slices.ContainsFunc(o.Listeners, func(l Listener) bool { return !good(l.Conditions) }) ||
			slices.ContainsFunc(o.Parents, func(p Parent) bool { return !good(p.Conditions) }) {
			return false
		}
	}
	return true
}

// wished says whether a condition is as one wishes it and needs no explanation.
func wished(c Condition) bool {
	if c.Type == "Conflicted" {
		return !c.Status
	}
	return c.Status && c.Reason == c.Type
}

func writeConditions(b *strings.Builder, scope string, cs []Condition, more string) {
	var good []string
	for _, c := range cs {
		if wished(c) && c.Status {
			good = append(good, c.Type)
		}
	}
	if more != "" {
		good = append(good, more)
	}
	if len(good) > 0 {
		fmt.Fprintf(b, "%s: %s\n", scope, strings.Join(good, ", "))
	}
	for _, c := range cs {
		if wished(c) {
			continue
		}
		status := "False"
		if c.Unknown {
			status = "Unknown"
		} else if c.Status {
			status = "True"
		}
		fmt.Fprintf(b, "%s: %s=%s %s", scope, c.Type, status, c.Reason)
		if c.Message != "" {
			b.WriteString(": " + c.Message)
		}
		b.WriteString("\n")
	}
}
