// Package fact is the audit's vocabulary: what a step does to a class of requests, as comparable data, so that
// two layers that do the same thing twice, or contradict each other, can be told.
package fact

// Fact is one effect of one step.
type Fact struct {
	Effect string `json:"effect"` // "sets", "removes", "redirects", "limits", "refuses"
	Object string `json:"object"` // what it acts on: "request.header.x-caller", "request.body.bytes"
	Value  string `json:"value"`  // canonical text of the value: equal effects have equal texts
}
