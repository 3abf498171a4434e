package cluster

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	apiPort     = 6443
	kubeletPort = 10250
	etcdURL     = "http://127.0.0.1:2379"
)

// controlPlane is etcd, API server and controller manager, in a network namespace of their own.
type controlPlane struct {
	space *netSpace
	addr  netip.Addr

	mu                    sync.Mutex // guards starting and stopping
	etcd, api, controller *process
}

// url is where the API server answers, from the node and from pods.
func (p *controlPlane) url() string {
	return "https://" + netip.AddrPortFrom(p.addr, apiPort).String()
}

// writeCredentials makes all keys and certificates, and the kubeconfigs of the admin and the controller manager.
func (c *Cluster) writeCredentials() error {
	dir := filepath.Join(c.dir, "pki")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	ca, err := newAuthority(dir, "ca")
	if err != nil {
		return err
	}
	front, err := newAuthority(dir, "front-proxy-ca")
	if err != nil {
		return err
	}
	c.ca = ca
	ips := append([]netip.Addr{netip.MustParseAddr("127.0.0.1")}, c.net.addresses(hostControlPlane)...)
	ips = append(ips, nth(serviceNet4, 1), nth(serviceNet6, 1))
	names := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"}
	if _, err := ca.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"}, names, ips); err != nil {
		return err
	}
	kubelet := pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}}
	if _, err := ca.issue("apiserver-kubelet-client", kubelet, nil, nil); err != nil {
		return err
	}
	if _, err := front.issue("front-proxy-client", pkix.Name{CommonName: "front-proxy-client"}, nil, nil); err != nil {
		return err
	}
	var nodes []netip.Addr
	for _, n := range c.nodes {
		nodes = append(nodes, n.addrs...)
	}
	if c.kubeletCert, err = ca.issue("kubelet", pkix.Name{CommonName: "system:node"}, nil, nodes); err != nil {
		return err
	}
	if err := writeSigningKey(dir); err != nil {
		return err
	}
	admin := pkix.Name{CommonName: "kubernetes-admin", Organization: []string{"system:masters"}}
	if err := c.writeKubeconfig("admin", admin); err != nil {
		return err
	}
	return c.writeKubeconfig("controller-manager", pkix.Name{CommonName: "system:kube-controller-manager"})
}

// writeKubeconfig writes name.kubeconfig into the cluster's folder, with a certificate for the subject in it.
func (c *Cluster) writeKubeconfig(name string, subject pkix.Name) error {
	p, err := c.ca.issue(name, subject, nil, nil)
	if err != nil {
		return err
	}
	return writeKubeconfig(filepath.Join(c.dir, name+".kubeconfig"), &rest.Config{
		Host: c.plane.url(),
		TLSClientConfig: rest.TLSClientConfig{
			CAData: c.ca.pem, CertData: p.cert, KeyData: p.key,
		},
	})
}

func writeKubeconfig(path string, r *rest.Config) error {
	k := clientcmdapi.NewConfig()
	k.Clusters["lab"] = &clientcmdapi.Cluster{
		Server: r.Host, TLSServerName: r.ServerName, CertificateAuthorityData: r.CAData,
	}
	k.AuthInfos["admin"] = &clientcmdapi.AuthInfo{ClientCertificateData: r.CertData, ClientKeyData: r.KeyData}
	k.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: "admin"}
	k.CurrentContext = "lab"
	if err := clientcmd.WriteToFile(*k, path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// startControlPlane returns when the API server says it is ready.
func (c *Cluster) startControlPlane(ctx context.Context) error {
	p := c.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	if p.etcd, err = c.startProcess(p.space, "etcd", "-data-dir", filepath.Join(c.dir, "etcd")); err != nil {
		return err
	}
	// The API server waits for etcd, and the controller manager for the API server: all start at once.
	if p.api, err = c.startProcess(p.space, "kube-apiserver", c.apiServerFlags()...); err != nil {
		return err
	}
	if err := p.api.await(ctx, c.apiReady); err != nil {
		return errors.Join(err, p.etcdFailed())
	}
	p.controller, err = c.startProcess(p.space, "kube-controller-manager", c.controllerFlags()...)
	return err
}

// etcdFailed explains an API server that never became ready.
func (p *controlPlane) etcdFailed() error {
	select {
	case <-p.etcd.done:
		return fmt.Errorf("etcd ended (%w):\n%s", errors.Join(p.etcd.err), p.etcd.tail())
	default:
		return nil
	}
}

func (c *Cluster) apiServerFlags() []string {
	pki := filepath.Join(c.dir, "pki") + "/"
	ranges := serviceNet4.String()
	if c.net.ip6 {
		ranges += "," + serviceNet6.String()
	}
	flags := []string{
		"--advertise-address=" + c.plane.addr.String(),
		"--allow-privileged=true",
		"--authorization-mode=Node,RBAC",
		"--client-ca-file=" + pki + "ca.crt",
		"--etcd-servers=" + etcdURL,
		"--kubelet-certificate-authority=" + pki + "ca.crt",
		"--kubelet-client-certificate=" + pki + "apiserver-kubelet-client.crt",
		"--kubelet-client-key=" + pki + "apiserver-kubelet-client.key",
		"--kubelet-preferred-address-types=InternalIP",
		"--profiling=false",
		"--proxy-client-cert-file=" + pki + "front-proxy-client.crt",
		"--proxy-client-key-file=" + pki + "front-proxy-client.key",
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-client-ca-file=" + pki + "front-proxy-ca.crt",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--secure-port=" + strconv.Itoa(apiPort),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pki + "sa.pub",
		"--service-account-signing-key-file=" + pki + "sa.key",
		"--service-cluster-ip-range=" + ranges,
		"--tls-cert-file=" + pki + "apiserver.crt",
		"--tls-private-key-file=" + pki + "apiserver.key",
		// Compaction would run by itself every five minutes; tests compact when they want to.
		"--etcd-compaction-interval=0",
	}
	return append(flags, c.options.APIServerFlags...)
}

func (c *Cluster) controllerFlags() []string {
	pki := filepath.Join(c.dir, "pki") + "/"
	kubeconfig := filepath.Join(c.dir, "controller-manager.kubeconfig")
	return []string{
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		"--cert-dir=" + filepath.Join(c.dir, "controller-manager"),
		// Controllers start one after the other, each with calls to the API: with the usual limit that takes five seconds.
		"--kube-api-burst=2000",
		"--kube-api-qps=1000",
		"--kubeconfig=" + kubeconfig,
		"--leader-elect=false",
		"--profiling=false",
		"--root-ca-file=" + pki + "ca.crt",
		"--service-account-private-key-file=" + pki + "sa.key",
		"--use-service-account-credentials=true",
		// No node of the lab ever falls ill, and a stopped API server must not make it look so.
		"--controllers=*,-node-lifecycle-controller,-node-ipam-controller,-horizontal-pod-autoscaler-controller," +
			"-persistentvolume-attach-detach-controller,-persistentvolume-expander-controller",
	}
}

// apiReady asks the API server itself.
func (c *Cluster) apiReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	body, err := c.client.Discovery().RESTClient().Get().AbsPath("/readyz").Param("verbose", "").DoRaw(ctx)
	if err != nil {
		var waiting []string
		for line := range strings.Lines(string(body)) {
			if strings.HasPrefix(line, "[-]") {
				waiting = append(waiting, strings.TrimSpace(line))
			}
		}
		return fmt.Errorf("asking whether it is ready: %w %s", err, strings.Join(waiting, "; "))
	}
	return nil
}
