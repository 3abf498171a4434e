package translate

import (
	"slices"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// hostMemo is what a virtual host is made of, in match order. That of a large host is kept, so that a fragment that changes costs what is
// in it and not a sort of all.
type hostMemo struct {
	sorted    []*placed
	routes    []*ir.Route          // of those that are served; never changed, replaced
	redirects int                  // entries that are answered with one
	lost      map[*placed]struct{} // paths of Ingresses that are not served, because of an earlier one
}

// memoRule says from how many entries on a memo is kept, and that with more than one of so many fragments changed it is made anew.
type memoRule struct{ from, share int }

// remember keeps m if it is large, and has the forum note what changes from now on.
func (p *pass) remember(tp topic, m *hostMemo) {
	f := p.e.forum(tp)
	if len(m.sorted) < p.t.memos.from {
		p.u.memo, f.changed = nil, nil
		return
	}
	p.u.memo, f.changed = m, map[*unit]any{}
}

// fill adds the entries of a fragment, not yet in order.
func (m *hostMemo) fill(f *fragment) {
	for _, e := range f.Entries {
		m.sorted = append(m.sorted, &placed{entry: e, owner: f.Owner, created: f.Created})
		m.count(&e, 1)
	}
}

func (m *hostMemo) count(e *entry, n int) {
	if e.Redirect != nil {
		m.redirects += n
	}
}

// revise takes in what was said to the host's topic since the last time.
func (m *hostMemo) revise(p *pass, tp topic) {
	p.heard[tp] = struct{}{}
	f := p.e.forums[tp]
	if len(f.changed) == 0 {
		return
	}
	if len(f.changed)*p.t.memos.share > len(m.sorted) { // to sort is faster
		*m = hostMemo{}
		for _, v := range f.said {
			m.fill(v.(*fragment))
		}
		slices.SortFunc(m.sorted, comparePlaced)
		m.lead(0)
		return
	}
	same := len(m.lost) == 0
	m.routes = slices.Clone(m.routes)
	dirty := map[*placed]struct{}{} // whose place before others may be another
	for u, v := range f.changed {
		if old, _ := v.(*fragment); old != nil {
			for _, e := range old.Entries {
				m.remove(&placed{entry: e, owner: old.Owner, created: old.Created}, dirty, same)
			}
		}
		if now, _ := f.said[u].(*fragment); now != nil {
			for _, e := range now.Entries {
				m.insert(&placed{entry: e, owner: now.Owner, created: now.Created}, dirty, same)
			}
		}
	}
	places := make([]int, 0, len(dirty))
	for e := range dirty {
		places = append(places, m.find(e))
	}
	slices.Sort(places) // who stands behind whom follows from the one before
	for _, i := range places {
		m.lead(i)
	}
	if !same || len(m.lost) > 0 {
		m.served()
	}
}

// find is the place of e, or where it belongs.
func (m *hostMemo) find(e *placed) int {
	i, _ := slices.BinarySearchFunc(m.sorted, e, comparePlaced)
	for j := i; j < len(m.sorted) && comparePlaced(m.sorted[j], e) == 0; j++ {
		if m.sorted[j] == e || m.sorted[j].Route == e.Route {
			return j
		}
	}
	return i
}

func (m *hostMemo) insert(e *placed, dirty map[*placed]struct{}, same bool) {
	i := m.find(e)
	m.sorted = slices.Insert(m.sorted, i, e)
	if same {
		m.routes = slices.Insert(m.routes, i, e.Route)
	}
	m.count(&e.entry, 1)
	dirty[e] = struct{}{}
	if i+1 < len(m.sorted) {
		dirty[m.sorted[i+1]] = struct{}{}
	}
}

func (m *hostMemo) remove(e *placed, dirty map[*placed]struct{}, same bool) {
	i := m.find(e)
	old := m.sorted[i]
	m.sorted = slices.Delete(m.sorted, i, i+1)
	if same {
		m.routes = slices.Delete(m.routes, i, i+1)
	}
	m.count(&old.entry, -1)
	delete(m.lost, old)
	delete(dirty, old)
	if i < len(m.sorted) {
		dirty[m.sorted[i]] = struct{}{}
	}
}

// lead settles behind whom entries stand, from place i on until nothing changes; from 0 on for all. Only paths of Ingresses stand behind
// others.
func (m *hostMemo) lead(i int) {
	all := m.routes == nil
	for ; i < len(m.sorted); i++ {
		e := m.sorted[i]
		first := e
		if i > 0 && e.owner.Kind == "Ingress" {
			last := m.sorted[i-1].behind
			if (last.Behind == aPath) == (e.Behind == aPath) && last.Route.Match.Path == e.Route.Match.Path {
				first = last
			}
		}
		if e.behind == first && !all {
			return
		}
		if e.behind = first; first == e {
			delete(m.lost, e)
			continue
		}
		if m.lost == nil {
			m.lost = map[*placed]struct{}{}
		}
		m.lost[e] = struct{}{}
	}
	if all {
		m.served()
	}
}

// served lists the routes that are served.
func (m *hostMemo) served() {
	m.routes = make([]*ir.Route, 0, len(m.sorted)-len(m.lost))
	for _, e := range m.sorted {
		if e.behind == e {
			m.routes = append(m.routes, e.Route)
		}
	}
}

// first are copies of the entries that are served.
func (m *hostMemo) first() []placed {
	out := make([]placed, 0, len(m.sorted))
	for _, e := range m.sorted {
		if e.behind == e {
			out = append(out, *e)
		}
	}
	return out
}
