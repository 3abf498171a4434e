package gatehouse_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// statusObjects are one of each kind whose status Gatehouse writes, with a class of their own.
const statusObjects = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: $NS}
spec: {controllerName: gatehouse.dev/gateway}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: $NS
  infrastructure: {parametersRef: {group: gatehouse.dev, kind: GatewayParameters, name: plain}}
  listeners: [{name: http, port: 80, protocol: HTTP}, {name: more, port: 81, protocol: HTTP}]
---
apiVersion: gatehouse.dev/v1alpha1
kind: GatewayParameters
metadata: {name: plain}
spec: {httpsRedirect: false}
---
apiVersion: gatehouse.dev/v1alpha1
kind: Backend
metadata: {name: far}
spec: {endpoints: [{hostname: far.example, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: gw, sectionName: http}, {name: gw, sectionName: more}]
  hostnames: [web.example]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gatehouse.dev/v1alpha1
kind: ProtectionPolicy
metadata: {name: small}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]
  defaults: {sizes: {requestBody: 1Mi}}
---
apiVersion: gatehouse.dev/v1alpha1
kind: AuthPolicy
metadata: {name: callers}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]
  defaults: {authentication: {mode: Shadow, methods: [{name: anyone, anonymous: {}}]}}
---
apiVersion: gatehouse.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: often}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]
  defaults: {limits: {all: {rates: [{limit: 100000, period: 1s}]}}}
---
apiVersion: gatehouse.dev/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: calm}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]
  timeouts: {header: 9s}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: gatehouse
  rules: [{host: $NS.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
`

// kindStatus is what there is to know about the status of one of statusObjects that has conditions.
type kindStatus struct {
	name    string     // of the object, "" the test's namespace
	lists   [][]string // where conditions lie: its own, and those of each entry of a list
	least   int        // how many lists there are
	entries string     // the list whose entries each belong to one controller, "" none
	again   []string   // patches that each have Gatehouse write the status anew
}

var conditioned = map[string]kindStatus{
	"GatewayClass": {lists: [][]string{{"conditions"}}, least: 1, again: []string{`{"spec": {"description": "changed"}}`}},
	"Gateway": {name: "gw", lists: [][]string{{"conditions"}, {"listeners", "conditions"}}, least: 3,
		again: []string{`{"spec": {"infrastructure": {"labels": {"example.com/changed": "yes"}}}}`}},
	"HTTPRoute": {name: "web", lists: [][]string{{"parents", "conditions"}}, least: 2, entries: "parents",
		again: []string{`{"spec": {"hostnames": ["web.example", "changed.example"]}}`, `{"spec": {"hostnames": ["again.example"]}}`}},
	"AuthPolicy": {name: "callers", lists: [][]string{{"ancestors", "conditions"}}, least: 1, entries: "ancestors",
		again: []string{`{"spec": {"defaults": {"authentication": {"require": "AllOf"}}}}`, `{"spec": {"defaults": {"authentication": {"require": "AnyOf"}}}}`}},
	"RateLimitPolicy": {name: "often", lists: [][]string{{"ancestors", "conditions"}}, least: 1, entries: "ancestors",
		again: []string{`{"spec": {"defaults": {"limits": {"all": {"concurrency": 1000}}}}}`, `{"spec": {"defaults": {"limits": {"all": {"concurrency": 1001}}}}}`}},
	"ProtectionPolicy": {name: "small", lists: [][]string{{"ancestors", "conditions"}}, least: 1, entries: "ancestors",
		again: []string{`{"spec": {"defaults": {"sizes": {"requestBody": "2Mi"}}}}`, `{"spec": {"defaults": {"sizes": {"requestBody": "3Mi"}}}}`}},
	"ClientTrafficPolicy": {name: "calm", lists: [][]string{{"ancestors", "conditions"}}, least: 1, entries: "ancestors",
		again: []string{`{"spec": {"timeouts": {"header": "8s"}}}`, `{"spec": {"timeouts": {"header": "7s"}}}`}},
	"GatewayParameters": {name: "plain", lists: [][]string{{"conditions"}}, least: 1, again: []string{`{"spec": {"httpsRedirect": true}}`}},
	"Backend":           {name: "far", lists: [][]string{{"conditions"}}, least: 1, again: []string{`{"spec": {"endpoints": [{"hostname": "further.example", "port": 81}]}}`}},
}

func (s *scene) statusName(kind string) string {
	if name := conditioned[kind].name; name != "" {
		return name
	}
	return s.namespace
}

// editStatus changes a status as another controller would: it reads, changes and writes, and begins anew if that came too late. It
// returns what the API server stored.
func (s *scene) editStatus(ctx context.Context, kind string, edit func(status map[string]any)) (*unstructured.Unstructured, error) {
	for {
		o, err := s.of(kind).Get(ctx, s.statusName(kind), metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		status, _ := o.Object["status"].(map[string]any)
		if status == nil {
			status = map[string]any{}
			o.Object["status"] = status
		}
		edit(status)
		o, err = s.of(kind).UpdateStatus(ctx, o, metav1.UpdateOptions{FieldManager: "other"})
		if !apierrors.IsConflict(err) {
			return o, err
		}
	}
}

// theirs begins the types of conditions that another controller writes.
const theirs = "example.com/"

func foreignCondition(word, message string) map[string]any {
	return map[string]any{"type": theirs + word, "status": "True", "reason": "Clean", "message": message,
		"lastTransitionTime": time.Now().UTC().Format(time.RFC3339)}
}

func isForeign(condition any) bool {
	kind, _ := condition.(map[string]any)["type"].(string)
	return strings.HasPrefix(kind, theirs)
}

// everyList calls f with each list of conditions in a status and takes what it returns.
func everyList(kind string, o map[string]any, f func([]any) []any) (n int) {
	for _, path := range conditioned[kind].lists {
		if len(path) == 1 {
			list, _ := o[path[0]].([]any)
			o[path[0]] = f(list)
			n++
			continue
		}
		entries, _ := o[path[0]].([]any)
		for _, e := range entries {
			m := e.(map[string]any)
			list, _ := m[path[1]].([]any)
			m[path[1]] = f(list)
			n++
		}
	}
	return n
}

// verdict says what is missing until there is a verdict about the newest version of an object in each list.
func (s *scene) verdict(ctx context.Context, kind string) (*unstructured.Unstructured, error) {
	o, err := s.of(kind).Get(ctx, s.statusName(kind), metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	status, _ := o.Object["status"].(map[string]any)
	if status == nil {
		return o, errors.New("it has no status")
	}
	var faults []error
	n := everyList(kind, status, func(list []any) []any {
		if c := conditions(list)["Accepted"]; c.Status != "True" || c.ObservedGeneration != o.GetGeneration() {
			faults = append(faults, fmt.Errorf("Accepted is %s of version %d, want True of %d", c.Status, c.ObservedGeneration, o.GetGeneration()))
		}
		return list
	})
	if least := conditioned[kind].least; n < least {
		faults = append(faults, fmt.Errorf("%d lists, want %d", n, least))
	}
	return o, errors.Join(faults...)
}

// settle waits for that verdict.
func (s *scene) settle(kind string) (o *unstructured.Unstructured) {
	s.Helper()
	s.eventually("the status of "+kind, func(ctx context.Context) (err error) {
		o, err = s.verdict(ctx, kind)
		return err
	})
	return o
}

// shape is all foreign conditions of an object as they are, list by list, and the order of all types.
func shape(kind string, o *unstructured.Unstructured) (foreign []any, order []string) {
	status, _ := o.Object["status"].(map[string]any)
	everyList(kind, status, func(list []any) []any {
		for _, c := range list {
			order = append(order, c.(map[string]any)["type"].(string))
			if isForeign(c) {
				foreign = append(foreign, c)
			}
		}
		return list
	})
	return foreign, order
}

// foreignConditions: conditions of foreign types stay word for word in every list that Gatehouse writes, and all conditions keep their
// order.
func foreignConditions(s *scene) {
	s.backends("web")
	s.apply(statusObjects)
	for kind, k := range conditioned {
		s.settle(kind)
		stored, err := s.editStatus(s.Context(), kind, func(status map[string]any) {
			everyList(kind, status, func(list []any) []any {
				return append([]any{foreignCondition("Scanned", "first")}, append(slices.Clone(list), foreignCondition("Audited", "last"))...)
			})
		})
		s.must(err)
		foreign, order := shape(kind, stored)
		if len(foreign) < 2*k.least {
			s.Errorf("%s: of %d lists %d foreign conditions were stored", kind, k.least, len(foreign))
		}
		s.patch(kind, s.statusName(kind), k.again[0])
		f, o := shape(kind, s.settle(kind))
		if !reflect.DeepEqual(f, foreign) {
			s.Errorf("%s: foreign conditions are %v, were %v", kind, f, foreign)
		}
		if !slices.Equal(o, order) {
			s.Errorf("%s: the order of conditions is %v, was %v", kind, o, order)
		}
	}
}

// foreignEntry is an entry of another controller about a parent or ancestor of its own.
func foreignEntry(field, message string) map[string]any {
	return map[string]any{"controllerName": "example.com/other", strings.TrimSuffix(field, "s") + "Ref": map[string]any{
		"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "elsewhere"},
		"conditions": []any{map[string]any{"type": "Accepted", "status": "False", "reason": "NotMine", "message": message,
			"observedGeneration": int64(1), "lastTransitionTime": "2026-01-02T03:04:05Z"}}}
}

// entriesOf are the entries of a list by who wrote them.
func entriesOf(o *unstructured.Unstructured, field string) map[string][]any {
	out := map[string][]any{}
	list, _ := at(o, "status", field).([]any)
	for _, e := range list {
		by := e.(map[string]any)["controllerName"].(string)
		out[by] = append(out[by], e)
	}
	return out
}

// foreignEntries: entries of other controllers stay word for word and where they are.
func foreignEntries(s *scene) {
	s.backends("web")
	s.apply(statusObjects)
	for kind, k := range conditioned {
		if k.entries == "" {
			continue
		}
		s.settle(kind)
		stored, err := s.editStatus(s.Context(), kind, func(status map[string]any) {
			status[k.entries] = append([]any{foreignEntry(k.entries, "first")}, status[k.entries].([]any)...)
		})
		s.must(err)
		want := entriesOf(stored, k.entries)["example.com/other"]
		for _, change := range k.again {
			s.patch(kind, s.statusName(kind), change)
			s.eventually("both parties in "+kind, func(ctx context.Context) error {
				o, err := s.of(kind).Get(ctx, s.statusName(kind), metav1.GetOptions{})
				if err != nil {
					return err
				}
				list, _ := at(o, "status", k.entries).([]any)
				by := entriesOf(o, k.entries)
				if !reflect.DeepEqual(by["example.com/other"], want) || len(list) == 0 || !reflect.DeepEqual(list[0], want[0]) {
					s.Fatalf("%s: the other controller's entry was changed or moved: %v", kind, list)
				}
				ours := by["gatehouse.dev/gateway"]
				if len(ours) != k.least {
					return fmt.Errorf("%d entries of ours in %v", len(ours), list)
				}
				for _, e := range ours {
					if c := conditions(e.(map[string]any)["conditions"])["Accepted"]; c.ObservedGeneration != o.GetGeneration() {
						return fmt.Errorf("ours is about version %d of %d", c.ObservedGeneration, o.GetGeneration())
					}
				}
				return nil
			})
		}
	}
}

// statusContested: somebody else writes the same statuses 20 times a second while specs change, conditions among ours and an entry of
// its own. No word of theirs is ever lost, not even one that the next replaces, and in the end both have said their last.
func statusContested(s *scene) {
	s.backends("web")
	s.apply(statusObjects)
	change := map[string]string{
		"Gateway":          `{"spec": {"infrastructure": {"labels": {"example.com/n": "n%d"}}}}`,
		"HTTPRoute":        `{"spec": {"hostnames": ["n%d.example"]}}`,
		"ProtectionPolicy": `{"spec": {"defaults": {"sizes": {"requestBody": "%dMi"}}}}`,
	}
	for kind := range change {
		s.settle(kind)
	}
	ctx, cancel := context.WithTimeout(s.Context(), 3*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	word := ""
	for n := 1; ctx.Err() == nil; n++ {
		last := word
		word = fmt.Sprintf("word %d", n)
		for kind, patch := range change {
			s.patch(kind, s.statusName(kind), fmt.Sprintf(patch, n)) // first, to have both write at once
			_, err := s.editStatus(s.Context(), kind, func(status map[string]any) {
				if lost := wordLost(kind, status, last); lost != nil && last != "" {
					s.Fatalf("%s: what another controller wrote is gone: %v", kind, lost)
				}
				interfere(kind, status, word)
			})
			s.must(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	for kind := range change {
		s.eventually("the last word of both in "+kind, func(ctx context.Context) error { return s.lastWords(ctx, kind, word) })
	}
}

// wordLost says where a status does not have what interfere has written into it.
func wordLost(kind string, status map[string]any, word string) (lost error) {
	entries, _ := status[conditioned[kind].entries].([]any)
	if conditioned[kind].entries != "" && !slices.ContainsFunc(entries, func(e any) bool {
		m := e.(map[string]any)
		return m["controllerName"] == "example.com/other" && conditions(m["conditions"])["Accepted"].Message == word
	}) {
		lost = fmt.Errorf("no entry says %q: %v", word, entries)
	}
	everyList(kind, status, func(list []any) []any {
		if len(list) > 0 && !slices.ContainsFunc(list, isForeign) && conditions(list)["Accepted"].Reason != "NotMine" {
			lost = fmt.Errorf("no condition says %q: %v", word, list)
		}
		for _, c := range list {
			if got := c.(map[string]any)["message"]; isForeign(c) && got != word {
				lost = fmt.Errorf("a condition says %q, not %q", got, word)
			}
		}
		return list
	})
	return lost
}

// interfere says a word in each of our lists of conditions, and in an entry of its own.
func interfere(kind string, status map[string]any, word string) {
	field := conditioned[kind].entries
	if field != "" {
		list, _ := status[field].([]any)
		status[field] = slices.DeleteFunc(list, func(e any) bool { return e.(map[string]any)["controllerName"] == "example.com/other" })
	}
	everyList(kind, status, func(list []any) []any {
		return append(slices.DeleteFunc(list, isForeign), foreignCondition("Scanned", word))
	})
	if field != "" {
		status[field] = append(status[field].([]any), foreignEntry(field, word))
	}
}

// lastWords says what is missing until ours is about the newest version everywhere, beside the other's last word.
func (s *scene) lastWords(ctx context.Context, kind, word string) error {
	o, err := s.of(kind).Get(ctx, s.statusName(kind), metav1.GetOptions{})
	if err != nil {
		return err
	}
	status, field := maps.Clone(o.Object["status"].(map[string]any)), conditioned[kind].entries
	if field != "" {
		by := entriesOf(o, field)
		their := by["example.com/other"]
		if len(their) != 1 || conditions(their[0].(map[string]any)["conditions"])["Accepted"].Message != word {
			return fmt.Errorf("their entries are %v, want one that says %q", their, word)
		}
		status[field] = by["gatehouse.dev/gateway"]
	}
	var faults []error
	n := everyList(kind, status, func(list []any) []any {
		all := conditions(list)
		if c := all["Accepted"]; c.Status != "True" || c.ObservedGeneration != o.GetGeneration() || all[theirs+"Scanned"].Message != word {
			faults = append(faults, fmt.Errorf("Accepted is %s of version %d, want True of %d; they say %q, want %q", c.Status, c.ObservedGeneration,
				o.GetGeneration(), all[theirs+"Scanned"].Message, word))
		}
		return list
	})
	if least := conditioned[kind].least; n != least {
		faults = append(faults, fmt.Errorf("%d lists of ours, want %d", n, least))
	}
	return errors.Join(faults...)
}
