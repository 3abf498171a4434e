package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const echoImage = "gateway-api/echo-basic"

func TestMain(m *testing.M) {
	os.Exit(Lab(suite{m}, func(ctx context.Context) error {
		_, err := BuildEchoBasic(ctx, os.Stderr)
		return err
	}, func(ctx context.Context) error {
		_, err := probeProgram(ctx)
		return err
	}, func(ctx context.Context) error {
		_, err := GatewayAPICRDs(ctx, "standard")
		return err
	}))
}

// suite runs the tests, and then looks at what closing the cluster leaves behind.
type suite struct{ m *testing.M }

func (s suite) Run() int {
	status := s.m.Run()
	if !started.Load() || status != 0 {
		return status
	}
	if err := closeAndStartAgain(); err != nil {
		fmt.Println("FAIL: closing the cluster:", err)
		return 1
	}
	return 0
}

func closeAndStartAgain() error {
	c, err := shared()
	if err != nil {
		return err
	}
	for range 2 {
		if err := errors.Join(c.Close(), nothingLeft()); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if c, err = Start(ctx, Options{}); err != nil {
			return err
		}
	}
	return c.Close()
}

// nothingLeft looks for interfaces, processes and files in the lab, of which none may be left. Interfaces of namespaces that go take
// the kernel a moment.
func nothingLeft() error {
	var left []string
	for range 100 {
		left = nil
		links, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, l := range links {
			if l.Name != "lo" && (l.Name == bridgeName || strings.HasPrefix(l.Name, "veth")) {
				left = append(left, "interface "+l.Name)
			}
		}
		processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			return err
		}
		for _, p := range processes {
			if raw, err := os.ReadFile(p); err == nil && p != "/proc/1/cmdline" && len(raw) > 0 {
				left = append(left, "process "+strings.ReplaceAll(string(raw), "\x00", " "))
			}
		}
		files, err := os.ReadDir(stateDir)
		if err != nil {
			return err
		}
		for _, f := range files {
			left = append(left, "file "+f.Name())
		}
		if len(left) == 0 {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("there is left: %s", strings.Join(left, ", "))
}

// started says whether any test used the shared cluster.
var started atomic.Bool

// probeProgram is the path of internal/probe, the program that says what a container has.
func probeProgram(ctx context.Context) (string, error) {
	module, err := ModuleDir()
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "bin", "cluster-probe")
	return path, BuildProgram(ctx, module, "./internal/probe", path)
}

// shared is one cluster for all tests of the package: each has its own namespace.
var shared = sync.OnceValues(func() (*Cluster, error) {
	started.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	echo, err := BuildEchoBasic(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	probe, err := probeProgram(ctx)
	if err != nil {
		return nil, err
	}
	level := slog.LevelInfo
	if os.Getenv("CLUSTER_DEBUG") != "" {
		level = slog.LevelDebug
	}
	start := time.Now()
	c, err := Start(ctx, Options{
		Images: []Image{
			{Name: echoImage, Program: echo, User: 65532},
			{Name: "probe", Program: probe, FileCaps: []string{"NET_BIND_SERVICE"}},
			{Name: "probe-root", Program: probe},
		},
		LoadBalancerClass: "example.com/ours",
		Log:               slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	})
	fmt.Printf("the cluster started in %s\n", time.Since(start).Round(time.Millisecond))
	return c, err
})

// use returns the shared cluster and the name of a fresh namespace.
func use(t *testing.T) (context.Context, *Cluster, string) {
	t.Helper()
	c, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	ns, err := c.Client().CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.waitDefaultAccount(ctx, ns.Name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Client().CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), ns.Name, metav1.DeleteOptions{})
	})
	return ctx, c, ns.Name
}

// get returns the body of an answer of status 200.
func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s: %s", resp.Status, body)
	}
	return string(body), err
}
