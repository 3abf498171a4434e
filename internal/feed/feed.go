// Package feed carries what the control side computed to the data side, and acknowledgements back. Each part
// (configuration, endpoints, secrets) has a version of its own; a reader sees the newest of each, never an older one after a newer,
// and may miss versions in between. What is published is never changed afterwards.
package feed

import (
	"sync"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// State is the newest version of every part. Version 0 means: not published yet.
type State struct {
	Config           *ir.Config
	ConfigVersion    uint64
	Endpoints        ir.Endpoints
	EndpointsVersion uint64
	Secrets          secret.Set
	SecretsVersion   uint64
}

// ListenerState is how one listener fares on the data side.
type ListenerState struct {
	Bound   string // the socket's address, "" if none
	Problem string // why it is not bound or not serving, "" if it is
	Note    string // what clients should know though it serves: another port was bound
}

// Ack tells the control side which versions are live, and what only the data side could find out.
type Ack struct {
	ConfigVersion, EndpointsVersion, SecretsVersion uint64
	Listeners                                       map[string]ListenerState // by ir.Listener.Key
	Faults                                          []diag.Fault
}

// Memory is the carrier within one process. The zero value is ready.
type Memory struct {
	mu      sync.Mutex
	state   State
	ack     Ack
	changed chan struct{} // closed and replaced at each publication
	acked   chan struct{}
}

// Update publishes: f changes the parts that are new and raises nothing itself; Memory raises the version of each part
// that f names by returning true for it.
func (m *Memory) Update(f func(*State) (config, endpoints, secrets bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, e, s := f(&m.state)
	if c {
		m.state.ConfigVersion++
	}
	if e {
		m.state.EndpointsVersion++
	}
	if s {
		m.state.SecretsVersion++
	}
	if (c || e || s) && m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

// Latest returns the newest state and a channel that is closed when there is a newer one.
func (m *Memory) Latest() (State, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.state, m.changed
}

// Acknowledge replaces the last acknowledgement.
func (m *Memory) Acknowledge(a Ack) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ack = a
	if m.acked != nil {
		close(m.acked)
		m.acked = nil
	}
}

// Acked returns the last acknowledgement and a channel that is closed when there is a newer one.
func (m *Memory) Acked() (Ack, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.acked == nil {
		m.acked = make(chan struct{})
	}
	return m.ack, m.acked
}
