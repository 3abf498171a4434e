package proxy

import (
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Load is how short memory is.
type Load uint32

// The loads, each with what the ones before it do.
const (
	LoadNormal   Load = iota
	LoadRefusing      // exchanges that begin are answered 503 overloaded
	LoadShedding      // so are those that are collecting a whole body
)

// SetLoad makes l hold for all exchanges, also for those under way.
func (e *Edge) SetLoad(l Load) { e.load.Store(uint32(l)) }

// Load is what SetLoad was told last.
func (e *Edge) Load() Load { return Load(e.load.Load()) }

// Shedding reports whether an exchange that is collecting a whole body has to give up: then EventOverloaded.
func (f *Flow) Shedding() bool { return f.edge.Load() == LoadShedding }

var (
	nameRetryAfter  = []byte("Retry-After")
	valueRetryAfter = []byte("5") // seconds
)

// overloaded refuses an exchange for want of memory.
func (f *Flow) overloaded() Action {
	return f.answer(policy.Verdict{Status: 503, Reason: "overloaded", Header: []exchange.Field{{Name: nameRetryAfter, Value: valueRetryAfter}}})
}
