package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const echoImage = "gateway-api/echo-basic"

func TestMain(m *testing.M) {
	os.Exit(Lab(m, func(ctx context.Context) error {
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
