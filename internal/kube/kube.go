// Package kube is the only room that talks to a Kubernetes API server. It watches what Gatehouse reads and hands it on as
// changes of objects; while it holds the lease it writes status, the Services that infra makes, and events. It watches Secrets by
// metadata alone and asks by name for the bodies that something needs. Losing the API server or the lease never takes anything
// away from what is served: what was last seen stands until something newer is.
package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// Options of a Cluster.
type Options struct {
	Config            *rest.Config
	Log               *slog.Logger
	Namespace         string            // of the installation: its Services lie there
	Namespaces        []string          // that are watched; none: all
	GatewayController string            // by which entries in status are ours
	Installation      string            // tells the Services of two installations in one namespace apart
	Selector          map[string]string // labels of the pods that serve
	Identity          string            // of this process among those that want the lease: the pod's name
	LeaseNamespace    string
	LeaseName         string
}

// Cluster is a connection to one API server.
type Cluster struct {
	o         Options
	http      *http.Client
	scheme    *runtime.Scheme
	codecs    serializer.CodecFactory
	params    runtime.ParameterCodec
	discovery *discovery.DiscoveryClient
	metadata  metadata.Interface
	stats     stats

	mu      sync.Mutex
	clients map[schema.GroupVersion]*rest.RESTClient
	asking  sync.Mutex
	served  map[schema.GroupVersion]served

	source *source
}

type stats struct {
	events, relists, writes, conflicts, failed atomic.Int64
	leading                                    atomic.Bool
}

// Stats is what a Cluster counted since it began.
type Stats struct {
	Events    int64 // objects that watches brought
	Relists   int64 // watches that had to begin anew
	Writes    int64 // of status, Services and events' objects, that succeeded
	Conflicts int64 // writes that met a newer version and were made again
	Failed    int64 // writes that failed and are tried again
	Leading   bool  // this process writes
}

// Stats returns the counters.
func (c *Cluster) Stats() Stats {
	return Stats{c.stats.events.Load(), c.stats.relists.Load(), c.stats.writes.Load(), c.stats.conflicts.Load(), c.stats.failed.Load(), c.stats.leading.Load()}
}

// RESTConfig is client-go's, so that others can hand it on without importing client-go.
type RESTConfig = rest.Config

// ErrNoCluster says that nothing tells where an API server is.
var ErrNoCluster = errors.New("there is no cluster: no kubeconfig names one, and this is no pod of one")

// Config reads how to reach the API server: from a kubeconfig, else from the pod's ServiceAccount, else from where kubectl looks.
func Config(kubeconfig, userAgent string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	var config *rest.Config
	err := rest.ErrNotInCluster
	if kubeconfig == "" {
		config, err = rest.InClusterConfig()
	}
	if errors.Is(err, rest.ErrNotInCluster) {
		config, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
	}
	if clientcmd.IsEmptyConfig(err) {
		return nil, ErrNoCluster
	}
	if err != nil {
		return nil, fmt.Errorf("finding a cluster: %w", err)
	}
	config.UserAgent = userAgent
	config.QPS = -1 // the API server's own fairness is the limit; a limit of the client would only delay what is urgent
	return config, nil
}

// New prepares to talk to a cluster and sends nothing yet.
func New(o Options) (*Cluster, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	klog.SetSlogLogger(slog.New(warnings{o.Log.Handler()})) // what client-go logs by itself
	c := &Cluster{o: o, clients: map[schema.GroupVersion]*rest.RESTClient{}, served: map[schema.GroupVersion]served{}}
	var err error
	if c.scheme, err = newScheme(); err != nil {
		return nil, err
	}
	c.codecs, c.params = serializer.NewCodecFactory(c.scheme), runtime.NewParameterCodec(c.scheme)
	if c.http, err = rest.HTTPClientFor(o.Config); err != nil {
		return nil, fmt.Errorf("setting up the connection to the API server: %w", err)
	}
	if c.discovery, err = discovery.NewDiscoveryClientForConfigAndClient(o.Config, c.http); err != nil {
		return nil, fmt.Errorf("setting up discovery: %w", err)
	}
	if c.metadata, err = metadata.NewForConfigAndClient(metadata.ConfigFor(o.Config), c.http); err != nil {
		return nil, fmt.Errorf("setting up the metadata client: %w", err)
	}
	c.source = newSource(c)
	return c, nil
}

// warnings lets through only what an operator should see of what a library logs.
type warnings struct{ slog.Handler }

// Enabled leaves out what is below a warning.
func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}

// newScheme knows every kind that is read or written, each also under its older version if its fields are the same there.
func newScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, authorizationv1.AddToScheme, coordinationv1.AddToScheme, corev1.AddToScheme, discoveryv1.AddToScheme, networkingv1.AddToScheme,
		gatewayv1.Install, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("registering kinds: %w", err)
		}
	}
	old := schema.GroupVersion{Group: gatewayv1.GroupName, Version: "v1beta1"}
	s.AddKnownTypes(old, &gatewayv1.ReferenceGrant{}, &gatewayv1.ReferenceGrantList{})
	metav1.AddToGroupVersion(s, old)
	return s, nil
}

// olderVersions are versions under which a kind has the same fields, for clusters that do not serve the one in objects.Kinds.
func olderVersions(kind string) []string {
	if kind == "ReferenceGrant" {
		return []string{"v1beta1"}
	}
	return nil
}

// client returns the client for one group and version.
func (c *Cluster) client(gv schema.GroupVersion) (*rest.RESTClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.clients[gv]; r != nil {
		return r, nil
	}
	config := rest.CopyConfig(c.o.Config)
	config.GroupVersion, config.APIPath, config.NegotiatedSerializer = &gv, "/apis", c.codecs.WithoutConversion()
	if gv.Group == "" {
		config.APIPath = "/api"
	}
	switch gv.Group {
	case "", discoveryv1.GroupName, networkingv1.GroupName: // half the bytes and a fraction of the work; custom resources have only JSON
		config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	}
	r, err := rest.RESTClientForConfigAndClient(config, c.http)
	if err != nil {
		return nil, fmt.Errorf("setting up a client for %s: %w", gv, err)
	}
	c.clients[gv] = r
	return r, nil
}

// refOf names an object in verdicts.
func refOf(k objects.Kind, key objects.Key) diag.Ref {
	return diag.Ref{Group: k.Group, Kind: key.Kind, Namespace: key.Namespace, Name: key.Name}
}
