package gatehouse_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

// rights: Gatehouse reads of Secrets only what it needs.
func rights(s *site, t *testing.T) {
	for _, x := range []struct {
		name string
		run  func(*scene)
	}{
		{"only bodies that are named are asked for", auditedSecrets},
		{"lists and watches bring no body", watchedSecrets},
		{"a new certificate is served at once", rotation},
	} {
		t.Run(x.name, func(t *testing.T) { x.run(s.scene(t)) })
	}
}

// tlsGateway is a Gateway of a class with one HTTPS listener, whose certificate is that of the Secret named, and a route for its host.
func tlsGateway(class string, port int) string {
	return strings.NewReplacer("$class", class, "$port", fmt.Sprint(port)).Replace(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: safe}
spec:
  gatewayClassName: $class
  listeners: [{name: https, port: $port, protocol: HTTPS, tls: {certificateRefs: [{name: named}]}}]
---`) + route("safe", "safe", "safe.example", "web")
}

// marker is in the body of Secrets that nothing refers to.
const marker = "nobody-needs-to-read-this"

// others are Secrets that nothing refers to: one of the very type that is served, and one that is none.
func (s *scene) others() {
	s.Helper()
	s.apply(newPair(s.T, "safe.example").secret("unnamed"), `
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {password: `+marker+`}
`)
}

// auditedSecrets: by the API server's own record, the pod lists and watches all and gets what is named.
func auditedSecrets(s *scene) {
	s.backends("web")
	s.others()
	p := newPair(s.T, "safe.example")
	s.apply(p.secret("named"), tlsGateway("gatehouse", 443))
	address := s.address("Gateway", "safe")
	s.serves(request{scheme: "https", address: address, host: "safe.example", roots: p.pool}, "web")
	s.patch("Secret", "password", `{"metadata": {"labels": {"changed": "yes"}}}`)
	s.patch("Secret", "unnamed", `{"metadata": {"labels": {"changed": "yes"}}}`)
	s.patch("Secret", "named", `{"metadata": {"labels": {"changed": "yes"}}}`)
	user := account(system, "gatehouse")
	s.eventually("the changed Secret to be asked for", func(context.Context) error {
		n := 0
		for _, e := range s.audit.entries(s.T, user) {
			if e.Verb == "get" && e.ObjectRef.Namespace == s.namespace && e.ObjectRef.Name == "named" {
				n++
			}
		}
		if n < 2 {
			return fmt.Errorf("it was asked for %d times", n)
		}
		return nil
	})
	watched := false
	for _, e := range s.audit.entries(s.T, user) {
		if e.ObjectRef.Resource != "secrets" {
			continue
		}
		switch e.Verb {
		case "list":
		case "watch":
			watched = true
		case "get": // also by all tests before this one, whose Secrets have these names
			if !slices.Contains([]string{"named", "tls", "keys"}, e.ObjectRef.Name) {
				s.Errorf("%s asked for Secret %s/%s, to which nothing refers", user, e.ObjectRef.Namespace, e.ObjectRef.Name)
			}
		default:
			s.Errorf("%s: %s %s", user, e.Verb, e.RequestURI)
		}
	}
	if !watched {
		s.Errorf("%s never watched Secrets", user)
	}
}

// asked is what one client asked the API server about Secrets.
type asked struct {
	verb, name, query, accept string
	answer                    *answerBody
}

type answerBody struct {
	io.ReadCloser
	mu   sync.Mutex
	seen bytes.Buffer
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	b.seen.Write(p[:n])
	b.mu.Unlock()
	return n, err
}

func (b *answerBody) contains(words ...string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(words, func(w string) bool { return bytes.Contains(b.seen.Bytes(), []byte(w)) })
}

// witness stands between a client and the API server and notes what is said about Secrets.
type witness struct {
	mu  sync.Mutex
	all []*asked
}

var secretPath = regexp.MustCompile(`^/api/v1/(?:namespaces/[^/]+/)?secrets(?:/([^/]+))?$`)

// start returns the witness's URL.
func (w *witness) start(s *scene) string {
	s.Helper()
	transport, err := rest.TransportFor(s.Config())
	s.must(err)
	to, err := url.Parse(s.Config().Host)
	s.must(err)
	proxy := &httputil.ReverseProxy{Transport: transport, FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Header.Set("Accept-Encoding", "identity") // to be able to read it
		},
		ModifyResponse: func(res *http.Response) error {
			m := secretPath.FindStringSubmatch(res.Request.URL.Path)
			if m == nil {
				return nil
			}
			a := &asked{verb: res.Request.Method, name: m[1], query: res.Request.URL.RawQuery, accept: res.Request.Header.Get("Accept"),
				answer: &answerBody{ReadCloser: res.Body}}
			res.Body = a.answer
			w.mu.Lock()
			w.all = append(w.all, a)
			w.mu.Unlock()
			return nil
		}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	server := &http.Server{Handler: proxy}
	go server.Serve(ln)
	s.Cleanup(func() { server.Close() })
	return "http://" + ln.Addr().String()
}

// watchedSecrets: Gatehouse, as a process whose every word with the API server is overheard, asks for metadata alone when it lists and
// watches, and gets nothing more.
func watchedSecrets(s *scene) {
	s.backends("web")
	s.others()
	p := newPair(s.T, "safe.example")
	s.apply("apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: $NS}\nspec: {controllerName: gatehouse.dev/gateway-heard}\n",
		p.secret("named"), tlsGateway(s.namespace, 18443))
	w := &witness{}
	s.gatehouse(w.start(s))
	s.serves(request{scheme: "https", address: "127.0.0.1", port: 18443, host: "safe.example", roots: p.pool}, "web")
	// The watch brings changes too, and those made before one that is acted on have come when that is done.
	s.patch("Secret", "password", `{"stringData": {"more": "`+marker+`"}}`)
	p = newPair(s.T, "safe.example")
	s.apply(p.secret("named"))
	s.serves(request{scheme: "https", address: "127.0.0.1", port: 18443, host: "safe.example", roots: p.pool}, "web")

	w.mu.Lock()
	defer w.mu.Unlock()
	collections, bodies := 0, 0
	for _, a := range w.all {
		switch {
		case a.verb != http.MethodGet:
			s.Errorf("%s of Secret %s", a.verb, a.name)
		case a.name != "":
			bodies++
			if a.name != "named" {
				s.Errorf("Secret %s was asked for", a.name)
			}
		default:
			collections++
			if !strings.Contains(a.accept, "as=PartialObjectMetadata") {
				s.Errorf("Secrets are listed or watched as %s", a.accept)
			}
			if !a.answer.contains("password") {
				s.Errorf("the answer to %s names no Secret of the test, so nothing can be said about it", a.query)
			}
			if a.answer.contains(marker, base64.StdEncoding.EncodeToString([]byte(marker))) {
				s.Error("the answer has bodies in it")
			}
		}
	}
	if collections == 0 || bodies < 2 {
		s.Errorf("%d lists and watches, %d bodies were asked for", collections, bodies)
	}
}

// gatehouse runs Gatehouse as a process on the node until the test ends.
func (s *scene) gatehouse(server string) {
	s.Helper()
	image, err := cluster.GatehouseUnderTest()
	s.must(err)
	kubeconfig := filepath.Join(s.TempDir(), "kubeconfig")
	s.must(s.WriteKubeconfig(kubeconfig, server))
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, image.Program, "run", "--kubeconfig="+kubeconfig, "--exposure=Host", "--bind=127.0.0.1",
		"--gateway-controller=gatehouse.dev/gateway-heard", "--ingress-controller=gatehouse.dev/ingress-heard",
		"--leader-election-namespace="+s.namespace, "--health=127.0.0.1:9932", "--admin=off")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	s.must(cmd.Start())
	s.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
		if s.Failed() {
			s.Logf("Gatehouse:\n%s", out.Bytes())
		}
	})
}

// rotation: who connects 2 s after a Secret changed gets the new certificate.
func rotation(s *scene) {
	s.backends("web")
	old, renewed := newPair(s.T, "safe.example"), newPair(s.T, "safe.example")
	s.apply(old.secret("named"), tlsGateway("gatehouse", 443))
	r := request{scheme: "https", address: s.address("Gateway", "safe"), host: "safe.example", roots: old.pool}
	s.serves(r, "web")
	s.apply(renewed.secret("named"))
	began := time.Now()
	r.roots = renewed.pool
	s.within(2*time.Second, "the new certificate", func(ctx context.Context) error { return r.answers(ctx, http.StatusOK, "web") })
	s.Logf("served after %v", time.Since(began).Round(time.Millisecond))
	r.roots = old.pool
	var unknown x509.UnknownAuthorityError
	if _, err := r.do(s.Context()); !errors.As(err, &unknown) {
		s.Errorf("the old certificate is still served to some: %v", err)
	}
	o, err := s.of("Gateway").Get(s.Context(), "safe", metav1.GetOptions{})
	s.must(err)
	if err := hasCondition(at(o, "status", "conditions"), "Programmed", "True", ""); err != nil {
		s.Error(err)
	}
}
