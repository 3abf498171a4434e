package gatehouse_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// feature is some objects and what is to hold when they are there.
type feature struct {
	name      string
	backends  map[string]int // name to number of pods
	tls       string         // host for which there is a Secret tls, "" none
	given     string         // objects, one Ingress called main among them; $NS is also the name of an IngressClass of ours
	hidden    bool           // the Ingress gets no address
	scenarios []scenario
}

type scenario struct {
	name  string
	steps []step
}

// step does or checks one thing.
type step struct {
	says string
	run  func(context.Context, *stage) error
}

// stage is what the steps of one scenario share.
type stage struct {
	*scene
	address string
	pair    *pair
	last    *answer
}

// run sets a feature up and plays its scenarios one after the other.
func (f *feature) run(s *site, t *testing.T) {
	sc := s.scene(t)
	for name, n := range f.backends {
		sc.apply(echo(name, n))
	}
	st := stage{scene: sc}
	if f.tls != "" {
		st.pair = newPair(t, f.tls)
		sc.apply(st.pair.secret("tls"))
	}
	for name, n := range f.backends {
		sc.ready(name, n)
	}
	sc.apply("apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: $NS}\nspec: {controller: gatehouse.dev/ingress}\n", f.given)
	if !f.hidden {
		st.address = sc.address("Ingress", "main")
	}
	for _, x := range f.scenarios {
		t.Run(x.name, func(t *testing.T) {
			here := st
			here.scene = &scene{s, t, sc.namespace}
			for _, step := range x.steps {
				if err := step.run(t.Context(), &here); err != nil {
					t.Fatalf("%s: %v", step.says, err)
				}
			}
		})
	}
}

// send is a request of a client that knows the Ingress's address; fields are "Name: value".
func send(method, target string, fields ...string) step {
	return step{"when the client sends " + method + " " + target, func(ctx context.Context, s *stage) error {
		u, err := url.Parse(target)
		if err != nil {
			return err
		}
		r := request{method: method, scheme: u.Scheme, address: s.address, host: u.Host, path: u.EscapedPath(),
			header: http.Header{"User-Agent": {"tester/1"}}}
		for _, f := range fields {
			name, value, _ := strings.Cut(f, ": ")
			r.header.Add(name, value)
		}
		if s.pair != nil {
			r.roots = s.pair.pool
		}
		s.last, err = r.do(ctx)
		return err
	}}
}

// check compares one thing about the last answer.
func check(what, want string, got func(*answer) string) step {
	return step{"then " + what + " is " + want, func(_ context.Context, s *stage) error {
		if g := got(s.last); g != want {
			return fmt.Errorf("it is %q", g)
		}
		return nil
	}}
}

func status(want int) step {
	return check("the status", fmt.Sprint(want), func(a *answer) string { return fmt.Sprint(a.status) })
}

func servedBy(service string) step {
	return check("the service that answers", service, func(a *answer) string { return a.seen.Service })
}

// sees compares what the backend got.
func sees(what, want string) step {
	return check("the "+what+" that the backend sees", want, func(a *answer) string {
		return map[string]string{"path": a.seen.Path, "host": a.seen.Host, "method": a.seen.Method, "protocol": a.seen.Proto,
			"User-Agent": a.seen.Headers.Get("User-Agent")}[what]
	})
}

// answered holds that the client speaks HTTP/1.1 and gets header fields by these names.
func answered(fields ...string) step {
	return step{"then the answer has " + fmt.Sprint(fields), func(_ context.Context, s *stage) error {
		if s.last.proto != "HTTP/1.1" {
			return fmt.Errorf("it is of %s", s.last.proto)
		}
		for _, f := range fields {
			if s.last.header.Get(f) == "" {
				return fmt.Errorf("there is no %s: %v", f, s.last.header)
			}
		}
		return nil
	}}
}

// answeredWith compares one header field that the client gets.
func answeredWith(field, want string) step {
	return check("the "+field+" of the answer", want, func(a *answer) string { return a.header.Get(field) })
}

// proves holds that the certificate is the one of the Secret and is good for a host.
func proves(host string) step {
	return step{"then the certificate is that of " + host, func(_ context.Context, s *stage) error {
		if len(s.last.certs) == 0 {
			return fmt.Errorf("there is none")
		}
		return s.last.certs[0].VerifyHostname(host)
	}}
}

// notFound holds that no backend answers.
func notFound() []step {
	return []step{status(http.StatusNotFound), servedBy("")}
}

// spread holds that so many requests are all answered 200, by so many pods in all. A pod that has just become ready may still be on its
// way to Gatehouse: that the last one is missing is no more than a reason to ask again.
func spread(requests, pods int, target string) step {
	return step{fmt.Sprintf("when the client sends %d requests, %d pods answer", requests, pods), func(ctx context.Context, s *stage) error {
		var seen map[string]int
		var refused error // ends the waiting
		s.within(10*time.Second, "all pods", func(ctx context.Context) error {
			if seen, refused = ask(ctx, s, requests, target); refused == nil && len(seen) != pods {
				return fmt.Errorf("%d pods answered: %v", len(seen), seen)
			}
			return nil
		})
		return refused
	}}
}

// ask counts which pods answer so many requests. It stops at one that is not answered 200.
func ask(ctx context.Context, s *stage, requests int, target string) (map[string]int, error) {
	seen := map[string]int{}
	for range requests {
		for _, step := range []step{send("GET", target), status(http.StatusOK)} {
			if err := step.run(ctx, s); err != nil {
				return nil, err
			}
		}
		seen[s.last.seen.Pod]++
	}
	return seen, nil
}

// noAddress holds that the Ingress has no address, also not a while after one that is served got its own.
func noAddress() step {
	return step{"then the Ingress has no address", func(ctx context.Context, s *stage) error {
		s.apply(`
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: served}
spec: {ingressClassName: $NS, defaultBackend: {service: {name: nowhere, port: {number: 80}}}}
`)
		s.address = s.scene.address("Ingress", "served")
		s.during(time.Second, func(ctx context.Context) error {
			o, err := s.of("Ingress").Get(ctx, "main", metav1.GetOptions{})
			if err == nil && len(addresses(o)) > 0 {
				err = fmt.Errorf("it has %v", addresses(o))
			}
			return err
		})
		return request{address: s.address, host: "ingress-class"}.answers(ctx, http.StatusInternalServerError, "")
	}}
}

// steps joins steps and lists of them.
func steps(all ...any) (out []step) {
	for _, x := range all {
		switch x := x.(type) {
		case step:
			out = append(out, x)
		case []step:
			out = slices.Concat(out, x)
		}
	}
	return out
}
