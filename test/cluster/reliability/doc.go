// Package reliability holds what must not happen to traffic when the things around Gatehouse break: the API server, the lease, pods,
// objects. Its tests run load against a cluster of their own and count what clients see.
package reliability
