package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/internal/cert"
	"github.com/gatehouse-io/gatehouse/internal/compile"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/kube"
	"github.com/gatehouse-io/gatehouse/internal/listener"
	"github.com/gatehouse-io/gatehouse/internal/manifest"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/builtin"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
	"github.com/gatehouse-io/gatehouse/internal/secret"
	"github.com/gatehouse-io/gatehouse/internal/translate"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

const (
	gatewayController = "gatehouse.dev/gateway"
	ingressController = "gatehouse.dev/ingress"
	defaultClass      = "gatehouse"
	defaultNamespace  = "gatehouse-system" // where an installation is looked for if none is found
)

// defaults are the objects that exist with -f without being written: GatewayClass and default IngressClass "gatehouse". One
// that is written takes their place.
func defaults(o translate.Options) []objects.Object {
	return []objects.Object{
		&gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: defaultClass},
			Spec: gatewayv1.GatewayClassSpec{ControllerName: gatewayv1.GatewayController(o.GatewayController)}},
		&networkingv1.IngressClass{
			ObjectMeta: metav1.ObjectMeta{Name: defaultClass,
				Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}},
			Spec: networkingv1.IngressClassSpec{Controller: o.IngressController}},
	}
}

// ports are where the default IngressClass listens.
type ports struct {
	http, https uint
	bind        string
}

func (c *call) ports() *ports {
	p := &ports{}
	c.flags.UintVar(&p.http, "http-port", 8080, "port of IngressClasses for HTTP; in a cluster 80 unless given")
	c.flags.UintVar(&p.https, "https-port", 8443, "port of IngressClasses for HTTPS; in a cluster 443 unless given")
	c.flags.StringVar(&p.bind, "bind", "", "address to bind where none is written; empty: all")
	return p
}

func (p *ports) options() (translate.Options, error) {
	o := translate.Options{GatewayController: gatewayController, IngressController: ingressController, Loopback: true,
		HTTPPort: uint16(p.http), HTTPSPort: uint16(p.https), Steps: builtin.Steps()}
	if p.http == 0 || p.http > 65535 || p.https == 0 || p.https > 65535 || p.http == p.https {
		return o, &usageError{"--http-port and --https-port are two different numbers from 1 to 65535"}
	}
	if p.bind != "" {
		a, err := netip.ParseAddr(p.bind)
		if err != nil {
			return o, &usageError{fmt.Sprintf("--bind is %q; write an IP address", p.bind)}
		}
		o.BindAddress = a
	}
	return o, nil
}

// offline is everything that can be known of files without serving them.
type offline struct {
	result   translate.Result
	snapshot *proxy.Snapshot
	clusters *upstream.Set
	faults   []diag.Fault

	installations []kube.Installation // in the cluster, if it is one
}

// place is where a command that serves nothing finds objects: in files, else in a cluster.
type place struct {
	files *list
	ports *ports
	reach reach
}

func (c *call) place() place { return place{c.files(), c.ports(), c.reach()} }

// load reads, translates and compiles.
func (c *call) load(ctx context.Context, p place) (*offline, error) {
	o, err := p.ports.options()
	if err != nil {
		return nil, err
	}
	if err := p.reach.names(&o); err != nil {
		return nil, err
	}
	if len(p.files.values) == 0 {
		return c.loadCluster(ctx, p, o)
	}
	paths := p.files.values
	objs, faults, err := manifest.Load(paths)
	if err != nil {
		return nil, err
	}
	store := objects.NewStore()
	store.Apply(objects.Change{Upserts: append(defaults(o), objs...)})
	f := &offline{result: translate.New(o).Update(store, nil)}
	f.finish(ctx, o, faults)
	manifest.Locate(paths, f.faults)
	diag.SortFaults(f.faults)
	f.faults = slices.Compact(f.faults)
	return f, nil
}

// loadCluster reads a cluster as an installation in it would.
func (c *call) loadCluster(ctx context.Context, p place, o translate.Options) (*offline, error) {
	k, err := p.reach.connect()
	if err != nil {
		return nil, err
	}
	faults, installations, err := k.Preflight(ctx)
	if err != nil {
		return nil, err
	}
	c.clusterPorts(&o)
	o.Loopback, o.Exposure, o.Namespace = false, translate.ExposureService, defaultNamespace
	if len(installations) > 0 {
		o.Namespace = installations[0].Namespace
	}
	f := &offline{installations: installations}
	store, t := objects.NewStore(), translate.New(o)
	err = k.Once(ctx, func(change objects.Change, unread []diag.Fault) []objects.Key {
		f.result = t.Update(store, store.Apply(change))
		if len(f.result.Pending) == 0 {
			faults = append(faults, unread...)
		}
		return f.result.Pending
	})
	if err != nil {
		return nil, err
	}
	f.finish(ctx, o, faults)
	diag.SortFaults(f.faults)
	f.faults = slices.Compact(f.faults)
	return f, nil
}

// finish compiles what was translated.
func (f *offline) finish(ctx context.Context, o translate.Options, faults []diag.Fault) {
	f.clusters = upstream.NewSet(upstream.Rules{Allow: allowed(o.Loopback)})
	var secrets secret.Store
	secrets.Swap(f.result.Secrets)
	var compiled []diag.Fault
	f.snapshot, compiled = compile.New(o.Steps, f.clusters, policy.Env{Secret: &secrets}, proxy.NoRecorder()).Compile(f.result.Config)
	lookups, stop := context.WithCancel(ctx)
	defer stop()
	resolver := upstream.NewResolver(f.clusters, names(), slog.New(slog.DiscardHandler))
	for _, k := range f.result.Config.Clusters {
		c := f.clusters.Acquire(k.Key)
		c.Configure(upstream.SettingsOf(k, f.result.Secrets))
		resolver.Apply(lookups, c, f.result.Endpoints[k.Key])
	}
	resolver.Wait(ctx, 2*time.Second)
	f.faults = slices.Concat(faults, f.result.Report.Faults(), compiled, certificateFaults(&f.result), bindFaults(f.result.Config.Listeners),
		edge.NameFaults(f.result.Config.Clusters, resolver.Problems()))
}

// certificateFaults are what is wrong with the certificates that listeners name, and with those for backends.
func certificateFaults(r *translate.Result) (out []diag.Fault) {
	var stores cert.Stores
	stores.Update(r.Config.Listeners, r.Secrets)
	out = edge.CertificateFaults(stores.Faults())
	for _, c := range r.Config.Clusters {
		if c.TLS == nil {
			continue
		}
		if _, err := cert.Backend(c.TLS, r.Secrets); err != nil {
			out = append(out, diag.Fault{Object: diag.Ref{Kind: c.Source.Kind, Namespace: c.Source.Namespace, Name: c.Source.Name},
				Path: c.Source.Field, Message: err.Error(), Reason: "InvalidTLS"})
		}
	}
	return out
}

// bindFaults are the listeners that will not serve because another one has their address and port.
func bindFaults(ls []*ir.Listener) (out []diag.Fault) {
	_, refused := listener.Sockets(nil, ls, nil, nil)
	for _, l := range ls {
		if st, ok := refused[l.Key]; ok {
			out = append(out, diag.Fault{Object: diag.Ref{Kind: l.Source.Kind, Namespace: l.Source.Namespace, Name: l.Source.Name},
				Path: l.Source.Field, Message: "does not serve: " + st.Problem, Hint: "give one of the two another port or address", Reason: "PortUnavailable"})
		}
	}
	return out
}

func writeJSON(c *call, v any) error {
	e := json.NewEncoder(c.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// loadAll is the command line of a command that takes files and nothing else: it reads the flags, then the files.
func (c *call) loadAll(ctx context.Context) (f *offline, asJSON bool, err error) {
	p, o := c.place(), c.output()
	rest, err := c.parse()
	if err != nil {
		return nil, false, err
	}
	if len(rest) > 0 {
		return nil, false, &usageError{fmt.Sprintf("unexpected %q: paths go behind -f", rest[0])}
	}
	if err := oneOf("-o", *o, "text", "json"); err != nil {
		return nil, false, err
	}
	f, err = c.load(ctx, p)
	return f, *o == "json", err
}

func runCheck(ctx context.Context, c *call) error {
	f, asJSON, err := c.loadAll(ctx)
	if err != nil {
		return err
	}
	errs, warnings := 0, 0
	for _, x := range f.faults {
		if x.Severity == diag.Warning {
			warnings++
		} else {
			errs++
		}
	}
	if asJSON {
		if f.faults == nil {
			f.faults = []diag.Fault{}
		}
		err = writeJSON(c, f.faults)
	} else {
		for _, i := range f.installations {
			fmt.Fprintln(c.stdout, i.Describe(time.Now()))
		}
		for _, x := range f.faults {
			fmt.Fprintln(c.stdout, x)
		}
		fmt.Fprintf(c.stdout, "%s, %s; %s on %s\n", count(errs, "error"), count(warnings, "warning"),
			count(routes(f), "route"), count(len(f.result.Config.Listeners), "listener"))
	}
	if err == nil && errs > 0 {
		err = errFound
	}
	return err
}

func routes(f *offline) (n int) {
	for _, h := range f.result.Config.Hosts {
		n += len(h.Routes)
	}
	return n
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
