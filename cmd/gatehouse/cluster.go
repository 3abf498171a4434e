package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/kube"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/translate"
)

// serviceAccountNamespace is where a pod finds the name of its namespace.
const serviceAccountNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// reach is how a cluster is reached, and what in it is ours.
type reach struct {
	kubeconfig, gateway, ingress *string
	namespaces                   *list
}

func (c *call) reach() reach {
	r := reach{
		kubeconfig: c.flags.String("kubeconfig", "", "kubeconfig of the cluster; empty: the pod's ServiceAccount, else where kubectl looks"),
		gateway:    c.flags.String("gateway-controller", gatewayController, "controllerName of the GatewayClasses that are ours"),
		ingress:    c.flags.String("ingress-controller", ingressController, "controller of the IngressClasses that are ours"),
		namespaces: &list{split: true},
	}
	c.flags.Var(r.namespaces, "watch-namespaces", "namespaces to read, with commas; empty: all")
	return r
}

// clusterFlags are the flags of run that matter without -f.
type clusterFlags struct {
	reach
	publish, exposure, selector, leaseNamespace, lease *string
}

func (c *call) cluster() clusterFlags {
	return clusterFlags{
		reach:          c.reach(),
		publish:        c.flags.String("publish-service", "", "NAMESPACE/NAME of a Service whose addresses status shows with exposure Host"),
		exposure:       c.flags.String("exposure", translate.ExposureService, "how clients come in where GatewayParameters do not say: Service or Host"),
		selector:       c.flags.String("pod-selector", "", "labels of the pods that serve (k=v,k=v), for the Services of exposure Service"),
		leaseNamespace: c.flags.String("leader-election-namespace", "", "namespace of the lease; empty: the pod's"),
		lease:          c.flags.String("leader-election-lease", "gatehouse", "name of the lease; one for each installation"),
	}
}

// names checks the controllers' names and lays them over o.
func (f *reach) names(o *translate.Options) error {
	for flag, v := range map[string]string{"--gateway-controller": *f.gateway, "--ingress-controller": *f.ingress} {
		if d, path, ok := strings.Cut(v, "/"); !ok || !strings.Contains(d, ".") || path == "" {
			return &usageError{fmt.Sprintf("%s is %q; write a domain and a path: %s", flag, v, gatewayController)}
		}
	}
	o.GatewayController, o.IngressController = *f.gateway, *f.ingress
	return nil
}

// options checks the flags and lays what they say over o.
func (f *clusterFlags) options(c *call, o *translate.Options) (kube.Options, error) {
	var k kube.Options
	if err := f.names(o); err != nil {
		return k, err
	}
	if err := oneOf("--exposure", *f.exposure, translate.ExposureService, translate.ExposureHost); err != nil {
		return k, err
	}
	if ns, name, ok := strings.Cut(*f.publish, "/"); *f.publish != "" && (!ok || ns == "" || name == "") {
		return k, &usageError{fmt.Sprintf("--publish-service is %q; write NAMESPACE/NAME", *f.publish)}
	}
	selector, err := labels(*f.selector)
	if err != nil {
		return k, err
	}
	if *f.exposure == translate.ExposureService && len(selector) == 0 {
		return k, &usageError{"--pod-selector is missing: exposure Service needs the labels of the pods that serve; to serve files write -f PATH, outside of the cluster --exposure Host"}
	}
	namespace := cmp.Or(c.getenv("POD_NAMESPACE"), readTrimmed(serviceAccountNamespace), "default")
	host, _ := os.Hostname()
	o.Loopback, o.Exposure, o.Publish, o.Namespace = false, *f.exposure, *f.publish, namespace
	if len(selector) == 0 {
		o.Namespace = "" // no Service could select anything
	}
	for a := range strings.SplitSeq(cmp.Or(c.getenv("HOST_IPS"), c.getenv("HOST_IP")), ",") {
		if ip, err := netip.ParseAddr(strings.TrimSpace(a)); err == nil {
			o.HostAddresses = append(o.HostAddresses, ip.String())
		}
	}
	c.clusterPorts(o)
	k = kube.Options{Namespace: o.Namespace, Namespaces: f.namespaces.values, GatewayController: *f.gateway, Selector: selector,
		Installation: *f.lease, Identity: cmp.Or(c.getenv("POD_NAME"), host), LeaseNamespace: cmp.Or(*f.leaseNamespace, namespace), LeaseName: *f.lease}
	k.Config, err = f.config()
	return k, err
}

// clusterPorts are those of IngressClasses in a cluster, where no flag says otherwise: what browsers use.
func (c *call) clusterPorts(o *translate.Options) {
	given := map[string]bool{}
	c.flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if !given["http-port"] {
		o.HTTPPort = 80
	}
	if !given["https-port"] {
		o.HTTPSPort = 443
	}
}

// config is how to talk to the API server.
func (f *reach) config() (*kube.RESTConfig, error) {
	config, err := kube.Config(*f.kubeconfig, "gatehouse/"+version)
	if errors.Is(err, kube.ErrNoCluster) {
		return nil, &usageError{err.Error() + "; name one with --kubeconfig, or files with -f PATH"}
	}
	return config, err
}

// connect prepares to look into a cluster from outside.
func (f *reach) connect() (*kube.Cluster, error) {
	config, err := f.config()
	if err != nil {
		return nil, err
	}
	return kube.New(kube.Options{Config: config, Namespaces: f.namespaces.values, GatewayController: *f.gateway})
}

func readTrimmed(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// labels reads "k=v,k=v".
func labels(s string) (map[string]string, error) {
	out := map[string]string{}
	for kv := range strings.SplitSeq(s, ",") {
		if kv = strings.TrimSpace(kv); kv == "" {
			continue
		}
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, &usageError{fmt.Sprintf("--pod-selector: %q is no label; write key=value,key=value", kv)}
		}
		out[k] = v
	}
	return out, nil
}

// clusterSource makes the cluster what is served, and has status written for it.
type clusterSource struct {
	*kube.Cluster
	p *process
}

// Run watches until ctx ends.
func (s clusterSource) Run(ctx context.Context, apply func(objects.Change, []diag.Fault)) error {
	writing := make(chan error, 1)
	leading, giveUp := context.WithCancel(ctx)
	defer giveUp()
	go func() { writing <- s.Write(leading, s.p.loop.Live) }()
	go func() { // whoever ends lets another lead at once, not after its drain
		select {
		case <-s.p.leaving:
			giveUp()
		case <-leading.Done():
		}
	}()
	err := s.Cluster.Run(ctx, apply)
	giveUp()
	return errors.Join(err, <-writing)
}
