package gatehouse_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// statuses: what Gatehouse writes into statuses, and what it leaves there.
func statuses(s *site, t *testing.T) {
	for _, x := range []struct {
		name string
		run  func(*scene)
	}{
		{"conditions of others stay", foreignConditions},
		{"entries of others stay", foreignEntries},
		{"entries go", statusGoes},
		{"others write all the time", statusContested},
		{"no write at rest", statusAtRest},
		{"events of an Ingress", eventsOfIngress},
	} {
		t.Run(x.name, func(t *testing.T) { x.run(s.scene(t)) })
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
	for _, kind := range []string{"ProtectionPolicy", "AuthPolicy", "RateLimitPolicy", "ClientTrafficPolicy"} {
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
	for kind := range conditioned {
		s.settle(kind)
	}
	s.address("Ingress", "web")
	kinds := []string{"GatewayClass", "Gateway", "HTTPRoute", "ProtectionPolicy", "AuthPolicy", "RateLimitPolicy", "ClientTrafficPolicy", "GatewayParameters", "Backend",
		"Ingress", "IngressClass", "Service"}
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
	for _, want := range []struct{ reason, path, word string }{
		{"InvalidCertificateRef", "spec.tls[0].secretName", "nosecret"},
		{"BackendNotFound", "spec.rules[0].http.paths[0].backend", "nowhere"},
		{"BackendNotFound", "spec.rules[0].http.paths[1].backend", "8888"},
	} {
		s.eventually("an Event about "+want.word, func(ctx context.Context) error {
			l, err := s.Client().CoreV1().Events(s.namespace).List(ctx, metav1.ListOptions{
				FieldSelector: "involvedObject.kind=Ingress,involvedObject.name=faulty,type=Warning"})
			if err != nil {
				return err
			}
			var all []string
			for _, e := range l.Items {
				if e.Reason == want.reason && strings.HasPrefix(e.Message, want.path) && strings.Contains(e.Message, want.word) && e.InvolvedObject.UID != "" {
					return nil
				}
				all = append(all, e.Reason+" "+e.Message)
			}
			return fmt.Errorf("there are %q", all)
		})
	}
}
