package gatehouse_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// statuses: what Gatehouse writes into statuses, and what it leaves there.
func statuses(s *site, t *testing.T) {
	for _, x := range []struct {
		name string
		run  func(*scene)
	}{
		{"what others wrote stays", statusOfOthers},
		{"entries go", statusGoes},
		{"others write all the time", statusContested},
		{"no write at rest", statusAtRest},
		{"events of an Ingress", eventsOfIngress},
	} {
		t.Run(x.name, func(t *testing.T) { x.run(s.scene(t)) })
	}
}

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
  listeners: [{name: http, port: 80, protocol: HTTP}, {name: more, port: 81, protocol: HTTP}]
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

// lists are where the conditions of an object lie: its own, and those of each entry of a list.
var lists = map[string][][]string{
	"GatewayClass":        {{"conditions"}},
	"Gateway":             {{"conditions"}, {"listeners", "conditions"}},
	"HTTPRoute":           {{"parents", "conditions"}},
	"ProtectionPolicy":    {{"ancestors", "conditions"}},
	"ClientTrafficPolicy": {{"ancestors", "conditions"}},
}

var statusNames = map[string]string{"Gateway": "gw", "HTTPRoute": "web", "ProtectionPolicy": "small", "ClientTrafficPolicy": "calm"}

func (s *scene) statusName(kind string) string {
	if kind == "GatewayClass" {
		return s.namespace
	}
	return statusNames[kind]
}

// editStatus changes a status as another controller would: it reads, changes and writes, and begins anew if that came too late.
func (s *scene) editStatus(ctx context.Context, kind, name string, edit func(status map[string]any)) error {
	for {
		o, err := s.of(kind).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		status, _ := o.Object["status"].(map[string]any)
		if status == nil {
			status = map[string]any{}
			o.Object["status"] = status
		}
		edit(status)
		_, err = s.of(kind).UpdateStatus(ctx, o, metav1.UpdateOptions{FieldManager: "other"})
		if !apierrors.IsConflict(err) {
			return err
		}
	}
}

func foreignCondition(message string) map[string]any {
	return map[string]any{"type": "example.com/Scanned", "status": "True", "reason": "Clean", "message": message,
		"lastTransitionTime": time.Now().UTC().Format(time.RFC3339)}
}

// everyList calls f with each list of conditions in a status and takes what it returns.
func everyList(kind string, status map[string]any, f func([]any) []any) (n int) {
	for _, path := range lists[kind] {
		if len(path) == 1 {
			list, _ := status[path[0]].([]any)
			status[path[0]] = f(list)
			n++
			continue
		}
		entries, _ := status[path[0]].([]any)
		for _, e := range entries {
			m := e.(map[string]any)
			list, _ := m[path[1]].([]any)
			m[path[1]] = f(list)
			n++
		}
	}
	return n
}

// settle waits until all objects have a verdict about their newest version in each list.
func (s *scene) settle(kind string, foreign string) {
	s.Helper()
	s.eventually("the status of "+kind, func(ctx context.Context) error {
		o, err := s.of(kind).Get(ctx, s.statusName(kind), metav1.GetOptions{})
		if err != nil {
			return err
		}
		status, _ := o.Object["status"].(map[string]any)
		var faults []error
		n := everyList(kind, status, func(list []any) []any {
			all := conditions(list)
			if all["example.com/Scanned"].Message != foreign {
				faults = append(faults, fmt.Errorf("the foreign condition is %q, want %q", all["example.com/Scanned"].Message, foreign))
			}
			if c := all["Accepted"]; c.Status != "True" || c.ObservedGeneration != o.GetGeneration() {
				faults = append(faults, fmt.Errorf("Accepted is %s of version %d, want True of %d", c.Status, c.ObservedGeneration, o.GetGeneration()))
			}
			return list
		})
		if want := map[string]int{"GatewayClass": 1, "Gateway": 3, "HTTPRoute": 2, "ProtectionPolicy": 1, "ClientTrafficPolicy": 1}[kind]; n < want {
			faults = append(faults, fmt.Errorf("%d lists, want %d", n, want))
		}
		return errors.Join(faults...)
	})
}

// statusOfOthers: conditions of foreign types stay in every list that Gatehouse writes, and so do entries of other controllers.
func statusOfOthers(s *scene) {
	s.backends("web")
	s.apply(statusObjects)
	entry := map[string]any{"controllerName": "example.com/other", "conditions": []any{foreignCondition("other"),
		map[string]any{"type": "Accepted", "status": "False", "reason": "NotMine", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"}}}
	parent, ancestor := maps.Clone(entry), maps.Clone(entry)
	parent["parentRef"] = map[string]any{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "elsewhere"}
	ancestor["ancestorRef"] = parent["parentRef"]
	for kind := range lists {
		s.settle(kind, "")
		s.must(s.editStatus(s.Context(), kind, s.statusName(kind), func(status map[string]any) {
			everyList(kind, status, func(list []any) []any { return append([]any{foreignCondition("mine")}, list...) })
		}))
	}
	for _, change := range []struct{ kind, patch string }{ // each has Gatehouse write the status anew
		{"GatewayClass", `{"spec": {"description": "changed"}}`},
		{"Gateway", `{"spec": {"infrastructure": {"labels": {"example.com/changed": "yes"}}}}`},
		{"HTTPRoute", `{"spec": {"hostnames": ["web.example", "changed.example"]}}`},
		{"ProtectionPolicy", `{"spec": {"defaults": {"sizes": {"requestBody": "2Mi"}}}}`},
		{"ClientTrafficPolicy", `{"spec": {"timeouts": {"header": "8s"}}}`},
	} {
		s.patch(change.kind, s.statusName(change.kind), change.patch)
		s.settle(change.kind, "mine")
	}
	for kind, x := range map[string]struct {
		field string
		entry map[string]any
		patch string
	}{
		"HTTPRoute":           {"parents", parent, `{"spec": {"hostnames": ["again.example"]}}`},
		"ProtectionPolicy":    {"ancestors", ancestor, `{"spec": {"defaults": {"sizes": {"requestBody": "3Mi"}}}}`},
		"ClientTrafficPolicy": {"ancestors", ancestor, `{"spec": {"timeouts": {"header": "7s"}}}`},
	} {
		s.must(s.editStatus(s.Context(), kind, s.statusName(kind), func(status map[string]any) {
			status[x.field] = append([]any{x.entry}, status[x.field].([]any)...)
		}))
		s.patch(kind, s.statusName(kind), x.patch)
		s.eventually("both parties in "+kind, func(ctx context.Context) error {
			o, err := s.of(kind).Get(ctx, s.statusName(kind), metav1.GetOptions{})
			if err != nil {
				return err
			}
			list, _ := at(o, "status", x.field).([]any)
			ours, theirs := 0, 0
			for _, e := range list {
				m := e.(map[string]any)
				switch all := conditions(m["conditions"]); m["controllerName"] {
				case "gatehouse.dev/gateway":
					if all["Accepted"].ObservedGeneration == o.GetGeneration() && all["example.com/Scanned"].Message == "mine" {
						ours++
					}
				case "example.com/other":
					if all["Accepted"].Reason == "NotMine" && all["example.com/Scanned"].Message == "other" {
						theirs++
					}
				}
			}
			if ours != len(list)-1 || theirs != 1 {
				return fmt.Errorf("%d of ours and %d of theirs in %v", ours, theirs, list)
			}
			return nil
		})
	}
}

// entries are the parents that Gatehouse says something about, by section.
func (s *scene) entries(ctx context.Context) ([]string, error) {
	o, err := s.of("HTTPRoute").Get(ctx, "web", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	var out []string
	list, _ := at(o, "status", "parents").([]any)
	for _, e := range list {
		m := e.(map[string]any)
		if m["controllerName"] == "gatehouse.dev/gateway" {
			section, _ := m["parentRef"].(map[string]any)["sectionName"].(string)
			out = append(out, section)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (s *scene) hasEntries(want ...string) {
	s.Helper()
	s.eventually(fmt.Sprintf("entries about %v", want), func(ctx context.Context) error {
		got, err := s.entries(ctx)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("they are about %v", got)
		}
		return err
	})
}

// statusGoes: Gatehouse's entry goes with the parentRef, and with the Gateway when that is no longer one of its own.
func statusGoes(s *scene) {
	s.backends("web")
	s.apply(statusObjects)
	s.hasEntries("http", "more")
	s.patch("HTTPRoute", "web", `{"spec": {"parentRefs": [{"name": "gw", "sectionName": "more"}]}}`)
	s.hasEntries("more")
	s.apply("apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: $NS-theirs}\nspec: {controllerName: example.com/other}\n")
	s.patch("Gateway", "gw", `{"spec": {"gatewayClassName": "`+s.namespace+`-theirs"}}`)
	s.hasEntries()
	s.noService("Gateway", "gw")
	for _, kind := range []string{"ProtectionPolicy", "ClientTrafficPolicy"} {
		s.eventually("no entry in "+kind, func(ctx context.Context) error {
			o, err := s.of(kind).Get(ctx, s.statusName(kind), metav1.GetOptions{})
			if list, _ := at(o, "status", "ancestors").([]any); err == nil && len(list) > 0 {
				err = fmt.Errorf("there is %v", list)
			}
			return err
		})
	}
	s.patch("Gateway", "gw", `{"spec": {"gatewayClassName": "`+s.namespace+`"}}`)
	s.hasEntries("more")
	s.gateway("gw", "Programmed", "True", "")
}

// statusContested: somebody else writes the same statuses 20 times a second while specs change. In the end both have said their last
// word.
func statusContested(s *scene) {
	s.backends("web")
	s.apply(statusObjects)
	kinds := []string{"Gateway", "HTTPRoute"}
	for _, k := range kinds {
		s.settle(k, "")
	}
	ctx, cancel := context.WithTimeout(s.Context(), 3*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	word := ""
	for n := 0; ctx.Err() == nil; n++ {
		word = fmt.Sprintf("word %d", n)
		for _, kind := range kinds {
			s.must(s.editStatus(s.Context(), kind, s.statusName(kind), func(status map[string]any) {
				everyList(kind, status, func(list []any) []any {
					list = slices.DeleteFunc(list, func(c any) bool { return c.(map[string]any)["type"] == "example.com/Scanned" })
					return append(list, foreignCondition(word))
				})
			}))
		}
		if n%5 == 0 {
			s.patch("Gateway", "gw", fmt.Sprintf(`{"spec": {"infrastructure": {"labels": {"example.com/n": "n%d"}}}}`, n))
			s.patch("HTTPRoute", "web", fmt.Sprintf(`{"spec": {"hostnames": ["n%d.example"]}}`, n))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	for _, k := range kinds {
		s.settle(k, word)
	}
}

// writes is how often the pod of the first installation has written, by its own count.
func (s *scene) writes(ctx context.Context) (string, error) {
	pods, err := s.pods(ctx, system, "gatehouse")
	if err != nil {
		return "", err
	}
	if len(pods) != 1 {
		return "", fmt.Errorf("there are %d pods", len(pods))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(pods[0].Status.PodIP, "9902")+"/metrics", nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`(?m)^gatehouse_kubernetes_writes_total (\S+)$`).FindSubmatch(b)
	if m == nil {
		return "", errors.New("gatehouse_kubernetes_writes_total is not among the metrics")
	}
	return string(m[1]), nil
}

// statusAtRest: when there is nothing to say, nothing is written.
func statusAtRest(s *scene) {
	s.backends("web")
	s.apply(statusObjects)
	for k := range lists {
		s.settle(k, "")
	}
	s.address("Ingress", "web")
	kinds := []string{"GatewayClass", "Gateway", "HTTPRoute", "ProtectionPolicy", "ClientTrafficPolicy", "GatewayParameters", "Backend", "Ingress", "IngressClass", "Service"}
	s.eventually("the end of what the tests before this one left", func(ctx context.Context) error {
		l, err := s.Client().CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, n := range l.Items {
			if n.DeletionTimestamp != nil {
				return fmt.Errorf("%s is still there", n.Name)
			}
		}
		return nil
	})
	s.atRest(time.Second, kinds)
	before, err := s.writes(s.Context())
	s.must(err)
	versions, err := s.versions(s.Context(), kinds)
	s.must(err)
	s.during(3*time.Second, func(ctx context.Context) error {
		count, err := s.writes(ctx)
		if err != nil {
			return err
		}
		now, err := s.versions(ctx, kinds)
		if err != nil {
			return err
		}
		if what := changed(versions, now); len(what) > 0 || count != before {
			return fmt.Errorf("writes went from %s to %s; these changed: %v", before, count, what)
		}
		return nil
	})
	if before == "0" {
		s.Error("nothing was ever written")
	}
}

// eventsOfIngress: an Ingress has no conditions, so Events say what is wrong with it.
func eventsOfIngress(s *scene) {
	s.backends("web")
	s.apply(`
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: faulty}
spec:
  ingressClassName: gatehouse
  tls: [{hosts: [faulty.example], secretName: nosecret}]
  rules:
  - host: faulty.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: nowhere, port: {number: 80}}}}
      - {path: /web, pathType: Prefix, backend: {service: {name: web, port: {number: 8888}}}}
`)
	for _, want := range []string{"nosecret", "nowhere", "8888"} {
		s.eventually("an Event about "+want, func(ctx context.Context) error {
			l, err := s.Client().CoreV1().Events(s.namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Ingress,involvedObject.name=faulty,type=Warning"})
			if err != nil {
				return err
			}
			var all []string
			for _, e := range l.Items {
				if strings.Contains(e.Message, want) && strings.Contains(e.Message, "spec.") && e.InvolvedObject.UID != "" {
					return nil
				}
				all = append(all, e.Message)
			}
			return fmt.Errorf("there are %q", all)
		})
	}
}
