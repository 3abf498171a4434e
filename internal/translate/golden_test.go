package translate_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/manifest"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/policy/builtin"
	"github.com/gatehouse-io/gatehouse/internal/secret"
	"github.com/gatehouse-io/gatehouse/internal/translate"
)

var update = flag.Bool("update", false, "write what the golden cases get as what they want")

// builtins are what files mode adds.
const builtins = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gatehouse}
spec: {controllerName: gatehouse.dev/gateway}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: gatehouse, annotations: {ingressclass.kubernetes.io/is-default-class: "true"}}
spec: {controller: gatehouse.dev/ingress}
`

func options() translate.Options {
	return translate.Options{GatewayController: "gatehouse.dev/gateway", IngressController: "gatehouse.dev/ingress",
		HTTPPort: 8080, HTTPSPort: 8443, Loopback: true, Steps: builtin.Steps()}
}

// inCluster are the options of an installation in a namespace of a cluster.
func inCluster(namespace string) translate.Options {
	o := options()
	o.Loopback, o.Exposure, o.Namespace, o.HTTPPort, o.HTTPSPort = false, translate.ExposureService, namespace, 80, 443
	return o
}

// parse reads YAML as files mode does: strictly, and with the defaults of an API server.
func parse(t testing.TB, text string) []objects.Object {
	t.Helper()
	all, faults := manifest.Parse("in.yaml", []byte(text))
	for _, f := range faults {
		t.Errorf("%s", f)
	}
	return withPairs(t, all)
}

// withPairs puts a certificate and its key into the Secrets that ask for one, and a certificate into the ConfigMaps that do.
func withPairs(t testing.TB, all []objects.Object) []objects.Object {
	t.Helper()
	for _, o := range all {
		if s, ok := o.(*objects.Secret); ok && string(s.Material.Data["tls.crt"].Reveal()) == "PAIR" {
			s.Material.Data = testPair(t)
		}
		if c, ok := o.(*corev1.ConfigMap); ok && c.Data["ca.crt"] == "CA" {
			c.Data["ca.crt"] = string(testPair(t)["tls.crt"].Reveal())
		}
	}
	return all
}

// testPair makes a certificate and its key.
func testPair(t testing.TB) map[string]secret.Value {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"shop.example"}}
	crt, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]secret.Value{
		"tls.crt": secret.New(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: crt})),
		"tls.key": secret.New(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})),
	}
}

// TestGolden runs the cases in testdata. in.yaml is what users write; loose.yaml is what an API server or a file with its
// schema would refuse, and translate must withstand all the same.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			store := objects.NewStore()
			store.Apply(objects.Change{Upserts: parse(t, builtins)})
			var got *translate.Result
			o := options()
			for i, f := range a.Files {
				switch f.Name {
				case "cluster": // as in a cluster, not with files
					o = inCluster("edge")
					continue
				case "in.yaml":
					store.Apply(objects.Change{Upserts: parse(t, string(f.Data))})
					continue
				case "loose.yaml":
					store.Apply(objects.Change{Upserts: withPairs(t, decodeAll(t, string(f.Data)))})
					continue
				}
				if got == nil {
					r := translate.New(o).Update(store, nil)
					got = &r
				}
				text := section(t, f.Name, got)
				if d := cmp.Diff(string(f.Data), text); d != "" && !*update {
					t.Errorf("%s (-want +got), accept it with: go test ./internal/translate -run Golden -update\n%s\ngot:\n%s", f.Name, d, text)
				}
				a.Files[i].Data = []byte(text)
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// section prints one view of a result.
func section(t testing.TB, name string, r *translate.Result) string {
	t.Helper()
	switch name {
	case "routes":
		return ir.RoutesText(r.Config)
	case "status":
		return diag.StatusText(r.Report)
	case "faults":
		return faultsText(r.Report)
	case "steps":
		return stepsText(r.Config)
	case "traffic":
		return trafficText(r.Config)
	case "listeners":
		return listenersText(r.Config)
	case "endpoints":
		return endpointsText(r)
	case "exposure":
		return exposureText(r)
	}
	t.Fatalf("section %s is not known", name)
	return ""
}

func faultsText(r *diag.Report) string {
	var b strings.Builder
	for _, f := range r.Faults() {
		fmt.Fprintf(&b, "%s\n", f)
	}
	return b.String()
}

// stepsText shows every step of every listener and route, in the order in which they run.
func stepsText(c *ir.Config) string {
	var b strings.Builder
	write := func(indent string, steps []*ir.Step) {
		for _, s := range steps {
			fmt.Fprintf(&b, "%s%s: %s %s from %s\n", indent, s.Phase, s.Name, s.Spec, s.Source())
			for _, k := range sortedKeys(s.Sources) {
				if k != "" {
					fmt.Fprintf(&b, "%s  %s from %s\n", indent, k, s.Sources[k])
				}
			}
		}
	}
	for _, l := range c.Listeners {
		if len(l.Steps) > 0 {
			fmt.Fprintf(&b, "no route on %s\n", l.Key)
			write("  ", l.Steps)
		}
	}
	for _, h := range c.Hosts {
		for _, r := range h.Routes {
			if len(r.Steps) > 0 {
				fmt.Fprintf(&b, "%s on %s\n", r.Name, h.Listener)
			}
			write("  ", r.Steps)
			for _, bk := range r.Backends {
				write("  to "+ir.ClusterText(bk.Cluster)+" ", bk.Steps)
			}
		}
	}
	return b.String()
}

// trafficText shows what decides about tries, times and endpoints: of each route, then of each cluster.
func trafficText(c *ir.Config) string {
	var b strings.Builder
	part := func(name string, v any) {
		if raw, err := json.Marshal(v); err == nil && string(raw) != "null" && string(raw) != "{}" {
			fmt.Fprintf(&b, "  %s %s\n", name, raw)
		}
	}
	for _, h := range c.Hosts {
		for _, r := range h.Routes {
			fmt.Fprintf(&b, "%s\n", r.Name)
			part("timeouts", r.Timeouts)
			part("retry", r.Retry)
			part("affinity", r.Affinity)
			for _, s := range r.Steps {
				for _, k := range sortedKeys(s.Refs) {
					fmt.Fprintf(&b, "  %s %s %s\n", s.Name, k, s.Refs[k])
				}
			}
		}
	}
	for _, k := range c.Clusters {
		fmt.Fprintf(&b, "%s\n", k.Key)
		if t := k.Traffic; t != nil {
			for _, f := range []struct {
				name string
				v    any
			}{{"balancer", t.Balancer}, {"affinity", t.Affinity}, {"connect", t.Connect}, {"firstByte", t.First}, {"total", t.Total}, {"retry", t.Retry},
				{"budget", t.Budget}, {"breaker", t.Breaker}, {"active", t.Active}, {"passive", t.Passive}} {
				part(f.name, f.v)
			}
		}
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	for i := range out {
		for j := i; j > 0 && out[j] < out[j-1]; j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}

func listenersText(c *ir.Config) string {
	var b strings.Builder
	for _, l := range c.Listeners {
		fmt.Fprintf(&b, "%s %s :%d", l.Key, l.Protocol, l.Port)
		if l.Hostname != "" {
			fmt.Fprintf(&b, " %s", l.Hostname)
		}
		for _, bind := range l.Binds {
			if bind.Address.IsValid() {
				fmt.Fprintf(&b, " at %s", netip.AddrPortFrom(bind.Address, bind.Port))
			} else if bind.Port != l.Port {
				fmt.Fprintf(&b, " at :%d", bind.Port)
			}
		}
		if len(l.Binds) == 0 {
			b.WriteString(" not bound")
		}
		if l.TLS != nil {
			for _, cert := range l.TLS.Certificates {
				fmt.Fprintf(&b, " %s%v", cert.Handle, cert.Hosts)
			}
			if l.TLS.Default != "" {
				fmt.Fprintf(&b, " default %s", l.TLS.Default)
			}
		}
		if len(l.Backends) > 0 {
			fmt.Fprintf(&b, " backends %v", l.Backends)
		}
		if l.Client != nil {
			j, _ := json.Marshal(l.Client)
			fmt.Fprintf(&b, " client %s", j)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// exposureText shows the Services that are wanted, and the addresses that are known.
func exposureText(r *translate.Result) string {
	var b strings.Builder
	for _, o := range r.Report.Sorted() {
		if o.Exposure != nil {
			j, _ := json.Marshal(o.Exposure)
			fmt.Fprintf(&b, "%s wants %s\n", o.Ref, j)
		}
		for _, a := range o.Addresses {
			fmt.Fprintf(&b, "%s at %s %s\n", o.Ref, a.Type, a.Value)
		}
	}
	return b.String()
}

func endpointsText(r *translate.Result) string {
	var b strings.Builder
	for _, c := range r.Config.Clusters {
		fmt.Fprintf(&b, "%s:", ir.ClusterText(c.Key))
		if c.TLS != nil {
			j, _ := json.Marshal(c.TLS)
			fmt.Fprintf(&b, " tls %s", j)
		}
		for _, e := range r.Endpoints[c.Key] {
			fmt.Fprintf(&b, " %s:%d", e.Host, e.Port)
			if e.Zone != "" {
				fmt.Fprintf(&b, " in %s", e.Zone)
			}
			if !e.Ready {
				b.WriteString(" draining")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
