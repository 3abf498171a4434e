package cert

import (
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// Stores are the stores of all HTTPS listeners. The zero value is ready; it is for one goroutine.
type Stores struct {
	listeners []*ir.Listener // with TLS, as they were given last
	kept      map[string]*kept
	stores    map[string]*Store
	faults    []Fault
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
	if s.kept == nil {
		s.kept, s.stores = map[string]*kept{}, map[string]*Store{}
	}
	ps := parser{}
	told := false
	s.listeners = s.listeners[:0]
	for _, l := range ls {
		if l.TLS == nil {
			continue
		}
		s.listeners = append(s.listeners, l)
		old := s.kept[l.Key]
		if old != nil && old.listener == l && old.fresh(secrets) {
			continue
		}
		k := remake(old, l, secrets, ps)
		told = told || len(k.faults) > 0 || old != nil && len(old.faults) > 0
		s.kept[l.Key], s.stores[l.Key] = k, k.store
		changed = true
	}
	if len(s.kept) > len(s.listeners) {
		s.drop()
		changed, told = true, true
	}
	if told {
		s.faults = nil
		for _, l := range s.listeners {
			s.faults = append(s.faults, s.kept[l.Key].faults...)
		}
	}
	return changed
}

// remake builds the store of a listener anew.
func remake(old *kept, l *ir.Listener, secrets secret.Set, ps parser) *kept {
	k := &kept{listener: l, material: materialOf(l.TLS, secrets)}
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
	return k
}

// drop forgets listeners that are gone.
func (s *Stores) drop() {
	live := make(map[string]bool, len(s.listeners))
	for _, l := range s.listeners {
		live[l.Key] = true
	}
	for key := range s.kept {
		if !live[key] {
			delete(s.kept, key)
			delete(s.stores, key)
		}
	}
}

// ByListener are the stores by listener key, until the next Update.
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
	return t.Default == "" || secrets[t.Default] == k.material[len(t.Certificates)]
}
