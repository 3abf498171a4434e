package cert

import (
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// Stores are the stores of all HTTPS listeners. The zero value is ready; it is for one goroutine.
type Stores struct {
	kept   map[string]*kept
	stores map[string]*Store
	faults []Fault
}

// kept is a store and what it was made of.
type kept struct {
	listener *ir.Listener
	material []*secret.Material // by certificate, then the default
	store    *Store
	faults   []Fault
}

// Update makes the stores those of ls and reports whether one of them changed. The store of a listener that is the same as before, with
// the same material, is kept.
func (s *Stores) Update(ls []*ir.Listener, secrets secret.Set) (changed bool) {
	next := make(map[string]*kept, len(s.kept))
	ps := parser{}
	n := 0
	for _, l := range ls {
		if l.TLS == nil {
			continue
		}
		k := s.kept[l.Key]
		if k == nil || k.listener != l || !k.fresh(secrets) {
			old := k
			k = &kept{listener: l, material: materialOf(l.TLS, secrets)}
			var prev *Store
			if old != nil {
				prev = old.store
			}
			k.store, k.faults = build(prev, l.Hostname, l.TLS, secrets, ps)
			for i := range k.faults {
				if k.faults[i].Source.Kind == "" { // of a default certificate
					k.faults[i].Source = l.Source
				}
			}
			changed = true
		}
		next[l.Key] = k
		n += len(k.faults)
	}
	if !changed && len(next) == len(s.kept) {
		return false
	}
	s.kept, s.stores, s.faults = next, make(map[string]*Store, len(next)), make([]Fault, 0, n)
	for _, l := range ls {
		if k := next[l.Key]; k != nil {
			s.stores[l.Key] = k.store
			s.faults = append(s.faults, k.faults...)
		}
	}
	return true
}

// ByListener are the stores by listener key. The map is not changed any more.
func (s *Stores) ByListener() map[string]*Store { return s.stores }

// Faults are those of all stores.
func (s *Stores) Faults() []Fault { return s.faults }

func materialOf(t *ir.TLS, secrets secret.Set) []*secret.Material {
	out := make([]*secret.Material, 0, len(t.Certificates)+1)
	for i := range t.Certificates {
		out = append(out, secrets[t.Certificates[i].Handle])
	}
	return append(out, secrets[t.Default])
}

// fresh reports whether the material is still the same.
func (k *kept) fresh(secrets secret.Set) bool {
	t := k.listener.TLS
	for i := range t.Certificates {
		if secrets[t.Certificates[i].Handle] != k.material[i] {
			return false
		}
	}
	return secrets[t.Default] == k.material[len(t.Certificates)]
}
