package gatehouse_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

// install installs the chart once more, under a name that holds "gatehouse", into the test's namespace if the release names none, and
// takes away what lies outside of namespaces when the test ends.
func (s *scene) install(r cluster.Release) {
	s.Helper()
	if r.Namespace == "" {
		r.Namespace = s.namespace
	}
	s.Cleanup(func() { s.uninstall(r) })
	ctx, cancel := context.WithTimeout(s.Context(), 60*time.Second)
	defer cancel()
	s.must(s.InstallGatehouse(ctx, r))
}

// uninstall removes the objects of a release, but not the CRDs, which others use.
func (s *scene) uninstall(r cluster.Release) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r.GatewayAPI = true
	rendered, err := cluster.RenderChart(ctx, &r)
	if err != nil {
		s.Error(err)
		return
	}
	if s.Failed() {
		text, err := s.log(ctx, r.Namespace, r.Name)
		s.Logf("log of %s/%s, %v:\n%s", r.Namespace, r.Name, err, text)
	}
	all, err := cluster.ParseYAML(rendered)
	if err != nil {
		s.Error(err)
		return
	}
	var out bytes.Buffer
	for _, o := range all {
		if o.GetKind() == "CustomResourceDefinition" {
			continue
		}
		b, err := yaml.Marshal(o.Object)
		if err != nil {
			s.Error(err)
		}
		fmt.Fprintf(&out, "---\n%s", b)
	}
	argv := append(s.Kubectl(), "delete", "--ignore-not-found", "--wait=false", "-f", "-")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = &out
	if text, err := cmd.CombinedOutput(); err != nil {
		s.Errorf("uninstalling %s: %v: %s", r.Name, err, text)
	}
}

// nodeAddress gives the node, and so the test, one more address.
func (s *scene) nodeAddress(address string) {
	s.Helper()
	lo, err := netlink.LinkByName("lo")
	s.must(err)
	a := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(address).To4(), Mask: net.CIDRMask(32, 32)}}
	s.must(netlink.AddrAdd(lo, a))
	s.Cleanup(func() {
		if err := netlink.AddrDel(lo, a); err != nil {
			s.Errorf("removing address %s: %v", address, err)
		}
	})
}

// logged waits until an installation has written a line with all words in it.
func (s *scene) logged(namespace, release string, words ...string) {
	s.Helper()
	s.eventually(fmt.Sprintf("a line of the log with %q", words), func(ctx context.Context) error {
		text, err := s.log(ctx, namespace, release)
		if err != nil {
			return err
		}
	lines:
		for line := range strings.Lines(text) {
			for _, w := range words {
				if !strings.Contains(line, w) {
					continue lines
				}
			}
			return nil
		}
		return errors.New("there is none")
	})
}
