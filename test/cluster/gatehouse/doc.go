// Package gatehouse holds tests of Gatehouse in a cluster, one behaviour after the other: what clients get, what status says, what it
// makes and what it leaves alone. One cluster serves all of them; each has namespaces of its own and leaves nothing to the next.
package gatehouse
