// Package conformance runs the Gateway API's own conformance tests against Gatehouse as the chart installs it, in a cluster that the
// tests make. It holds no test of ours: what upstream asks for is what counts.
package conformance
