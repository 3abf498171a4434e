package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Options are what a cluster is started with. The zero value is a cluster whose pods all fail for want of images.
type Options struct {
	// Images maps the references of pods to programs.
	Images []Image

	// LoadBalancerClass is the class of Services of type LoadBalancer that get an address from this cluster, beside those without a
	// class. Services of any other class are left to whoever they are meant for.
	LoadBalancerClass string

	// APIServerFlags are added to those of the API server; a later flag wins.
	APIServerFlags []string

	// Log gets what the node agent does; nil drops it.
	Log *slog.Logger

	// LogDir is an existing folder that gets the logs of the control plane's parts. Empty: a folder in the lab, which vanishes with it.
	LogDir string

	// Backoff is how long a container that ended waits before its second start; each further wait is twice as long, up to 20 times
	// Backoff. 0 is half a second. A kubelet's is 10 s.
	Backoff time.Duration
}

// Image is a program that stands for a container image.
type Image struct {
	// Name is an image reference. Registry, tag and digest are ignored, here and in pods.
	Name string
	// Program is the path of a static program, on the machine.
	Program string
	// Entrypoint is the path at which the program appears in the container. Empty: "/" and the program's file name.
	Entrypoint string
	// Args are the arguments where the pod gives neither command nor args.
	Args []string
	// Env are variables "NAME=value" that the pod can override.
	Env []string
	// User is the user and group id of a pod that sets none: that of the image. 0 is root.
	User int64
	// FileCaps are capabilities (NET_BIND_SERVICE) that the program's file would carry: a process that is not root gets those that
	// its container has. Without them, adding capabilities gives nothing to such a process.
	FileCaps []string
}

// Cluster is a running cluster.
type Cluster struct {
	options Options
	binary  string
	dir     string // everything of this cluster, within the lab
	logs    string
	log     *slog.Logger

	net         *network
	plane       *controlPlane
	services    *netSpace
	nodes       []*node
	ca          *authority
	kubeletCert pair

	config  *rest.Config
	client  kubernetes.Interface
	gate    *gate
	node    kubernetes.Interface // client of the node agent, behind the gate
	dynamic dynamic.Interface
	agent   *agent
	proxy   *serviceProxy
	stop    context.CancelFunc
	ended   []func() // waits for what stop has asked to end
}

// node is an entry among the cluster's nodes. All of them are the lab's own network, with an address each.
type node struct {
	name  string
	zone  string
	addrs []netip.Addr
}

// Start starts a cluster in the lab that this process is the first process of. It returns when the API answers and the nodes are
// ready, or with an error that holds the end of the log of what failed; then nothing is left running. A lab holds one cluster at a
// time.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if err := furnishLab(); err != nil {
		return nil, fmt.Errorf("starting a cluster: %w", err)
	}
	c := &Cluster{options: o, log: o.Log, logs: o.LogDir}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if c.binary, err = BuildControlPlane(ctx, os.Stderr); err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp(stateDir, "cluster-"); err != nil {
		return nil, fmt.Errorf("starting a cluster (is there one already?): %w", err)
	}
	if err := os.Chmod(c.dir, 0o755); err != nil {
		return nil, err
	}
	if c.logs == "" {
		c.logs = filepath.Join(c.dir, "logs")
		if err := os.MkdirAll(c.logs, 0o755); err != nil {
			return nil, err
		}
	}
	for _, step := range []func(context.Context) error{c.startNetwork, c.startAPI, c.startNodes} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("starting a cluster: %w", err), c.Close())
		}
	}
	return c, nil
}

func (c *Cluster) startNetwork(context.Context) error {
	var err error
	if c.net, err = newNetwork(); err != nil {
		return err
	}
	c.plane = &controlPlane{addr: nth(podNet4, hostControlPlane)}
	if c.plane.space, err = c.net.space(hostControlPlane); err != nil {
		return err
	}
	if c.services, err = c.net.space(hostServices); err != nil {
		return err
	}
	if err := c.net.serveVirtual(c.services); err != nil {
		return err
	}
	for i, zone := range []string{"a", "b"} {
		n := &node{name: "node-" + zone, zone: "zone-" + zone}
		if err := c.net.addNode(n, uint32(i+1)); err != nil {
			return err
		}
		c.nodes = append(c.nodes, n)
	}
	return nil
}

func (c *Cluster) startAPI(ctx context.Context) error {
	if err := c.writeCredentials(); err != nil {
		return err
	}
	var err error
	if c.config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig()); err != nil {
		return err
	}
	c.config.QPS, c.config.Burst = -1, -1
	if c.client, err = kubernetes.NewForConfig(c.config); err != nil {
		return err
	}
	c.gate = newGate()
	patient := rest.CopyConfig(c.config)
	patient.Wrap(c.gate.wrap)
	if c.node, err = kubernetes.NewForConfig(patient); err != nil {
		return err
	}
	if c.dynamic, err = dynamic.NewForConfig(c.config); err != nil {
		return err
	}
	return c.startControlPlane(ctx)
}

func (c *Cluster) startNodes(ctx context.Context) error {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	c.proxy = newServiceProxy(c)
	c.agent = newAgent(c)
	c.ended = append(c.ended, c.proxy.wait, c.agent.wait)
	if err := c.proxy.start(run); err != nil {
		return err
	}
	if err := c.agent.start(run); err != nil {
		return err
	}
	// Pods cannot be made in a namespace before its service account is there.
	return c.waitDefaultAccount(ctx, "default")
}

// Close ends everything of the cluster. Pods get no grace: tests that look at how a pod ends, end it.
func (c *Cluster) Close() error {
	if c.stop != nil {
		c.stop()
	}
	for _, wait := range c.ended {
		wait()
	}
	if c.plane != nil {
		c.plane.mu.Lock()
		c.plane.controller.stop(0)
		c.plane.api.stop(0)
		c.plane.etcd.stop(0)
		c.plane.mu.Unlock()
	}
	if c.net != nil {
		c.net.close(c)
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("closing the cluster: %w", err)
	}
	return nil
}

// Kubeconfig is the path of the admin's kubeconfig. Its server is an address within the lab.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, "admin.kubeconfig") }

// Config is a copy of the admin's client configuration, without limits on the rate of requests.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Client is the admin's client.
func (c *Cluster) Client() kubernetes.Interface { return c.client }

// Dynamic is the admin's dynamic client.
func (c *Cluster) Dynamic() dynamic.Interface { return c.dynamic }

// LogDir is the folder with the logs of the control plane's parts.
func (c *Cluster) LogDir() string { return c.logs }

// Kubectl is the command line of a kubectl of the cluster's version, to which arguments are added.
func (c *Cluster) Kubectl() []string {
	return []string{c.binary, "kubectl", "--kubeconfig", c.Kubeconfig()}
}

// APIAddr is where the API server listens; only the lab reaches it.
func (c *Cluster) APIAddr() netip.AddrPort { return netip.AddrPortFrom(c.plane.addr, apiPort) }

// WriteKubeconfig writes an admin's kubeconfig for use through a relay at server, a URL, that passes connections to APIAddr on.
func (c *Cluster) WriteKubeconfig(path, server string) error {
	r := c.Config()
	r.Host, r.ServerName = server, "kubernetes"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return writeKubeconfig(path, r)
}
