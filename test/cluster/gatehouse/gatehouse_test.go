package gatehouse_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

func TestMain(m *testing.M) {
	os.Exit(cluster.Lab(m, cluster.PrepareGatehouse, cluster.PrepareConformance))
}

// system is the namespace of the installation that most tests use; it is called gatehouse.
const system = "gatehouse-system"

// TestGatehouse is all tests of the package, in one cluster.
func TestGatehouse(t *testing.T) {
	audit := newAudit(t)
	s := &site{Cluster: cluster.StartTest(t, cluster.Options{APIServerFlags: audit.flags()}), audit: audit}
	t.Cleanup(func() {
		if t.Failed() {
			s.tellLogs(t)
		}
	})
	if err := s.InstallGatewayAPI(t.Context(), "standard"); err != nil {
		t.Fatal(err)
	}
	if err := s.InstallGatehouse(t.Context(), cluster.Release{Set: []string{"replicas=1", "drainGrace=1s"}}); err != nil {
		t.Fatal(err)
	}
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) { part.run(s, t) })
	}
}

// parts run in this order: `go test -run 'TestGatehouse/status'` chooses.
var parts = []struct {
	name string
	run  func(*site, *testing.T)
}{
	{"ingress conformance", ingressConformance},
	{"host", host},
	{"two installations", twoInstallations},
	{"services", services},
	{"status", statuses},
	{"policies", policies},
	{"chart", charts},
	{"rights", rights},
}

// site is the cluster that all tests share.
type site struct {
	*cluster.Cluster
	audit  *audit
	scenes atomic.Int64
}

// scene is one test with its namespace.
type scene struct {
	*site
	*testing.T
	namespace string
}

// scene makes a namespace for a test and removes it with all that is in it.
func (s *site) scene(t *testing.T) *scene {
	t.Helper()
	word := strings.ToLower(t.Name()[strings.LastIndexByte(t.Name(), '/')+1:])
	word = strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, word[:min(len(word), 30)]), "-")
	sc := &scene{s, t, fmt.Sprintf("t%d-%s", s.scenes.Add(1), word)}
	sc.space(sc.namespace)
	return sc
}

// space makes a namespace that goes with the test.
func (s *scene) space(name string) {
	s.Helper()
	s.must(s.Apply(s.Context(), fmt.Appendf(nil, "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", name)))
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Client().CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			s.Errorf("removing namespace %s: %v", name, err)
		}
	})
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// within waits until check returns nil.
func (s *scene) within(d time.Duration, what string, check func(context.Context) error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), d)
	defer cancel()
	s.must(s.Wait(ctx, what, check))
}

// eventually is within, for what is not about how long it takes.
func (s *scene) eventually(what string, check func(context.Context) error) {
	s.Helper()
	s.within(40*time.Second, what, check)
}

// during fails the test if check returns an error at any time within d.
func (s *scene) during(d time.Duration, check func(context.Context) error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), d)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := check(s.Context()); err != nil {
			s.Fatal(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pods lists the pods of an installation.
func (s *site) pods(ctx context.Context, namespace, release string) ([]corev1.Pod, error) {
	l, err := s.Client().CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + release})
	if err != nil {
		return nil, err
	}
	return l.Items, nil
}

// log is what the pods of an installation have written.
func (s *site) log(ctx context.Context, namespace, release string) (string, error) {
	pods, err := s.pods(ctx, namespace, release)
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, p := range pods {
		text, err := s.Logs(namespace, p.Name)
		if err != nil {
			return "", err
		}
		all.WriteString(text)
	}
	return all.String(), nil
}

// tellLogs puts the end of Gatehouse's log, without its access log, into the test's output.
func (s *site) tellLogs(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	text, err := s.log(ctx, system, "gatehouse")
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.Contains(line, `"status":`) {
			lines = append(lines, line)
		}
	}
	t.Logf("log of %s, %v:\n%s", system, err, strings.Join(lines[max(0, len(lines)-150):], ""))
}

// oneUser says whether the lab knows no user but its root, because somebody else made it: then no process of a pod gets a capability.
func oneUser() bool {
	raw, err := os.ReadFile("/proc/self/uid_map")
	fields := strings.Fields(string(raw))
	return err == nil && len(fields) == 3 && fields[2] == "1"
}

// needsCapabilities skips a test where there are none.
func needsCapabilities(t *testing.T) {
	t.Helper()
	if oneUser() {
		t.Skip("the lab was not made by root: pods get no capabilities")
	}
}

// repository is the folder of the repository.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := cluster.ModuleDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(filepath.Dir(dir))
}
