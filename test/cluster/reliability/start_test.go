package reliability

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

// output collects what a process prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

const health = "127.0.0.1:19902"

// ready asks a process for its readiness.
func ready(ctx context.Context) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+health+"/readyz", nil)
	if err != nil {
		return 0, "", err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// TestStartWithoutAPIServer: a process that starts while the API server is away is alive and not ready, says what it waits for, takes no
// connection, and serves once the API server is there.
func TestStartWithoutAPIServer(t *testing.T) {
	w := &world{cluster.StartTest(t, cluster.Options{}), t.Context(), "127.0.0.1"}
	w.must(t, w.InstallGatewayAPI(w.ctx, "standard"))
	w.must(t, w.InstallGatehouse(w.ctx, cluster.Release{Set: []string{"replicas=0"}})) // for its classes and CRDs
	w.apply(t, named(shop, "web"), cluster.Echo("shop", "web", 2))
	w.must(t, w.WaitDeployment(w.ctx, "shop", "web"))
	w.StopAPIServer()
	image, err := cluster.GatehouseUnderTest()
	w.must(t, err)
	var log output
	// Ports of their own for the IngressClass, which would else have port 80 if it is older than the Gateway.
	p := exec.Command(image.Program, "run", "--kubeconfig", w.Kubeconfig(), "--exposure", "Host", "--http-port", "18080", "--https-port", "18443",
		"--health", health, "--admin", "off", "--drain-grace", "0s")
	p.Stdout, p.Stderr = &log, &log
	w.must(t, p.Start())
	t.Cleanup(func() {
		_ = p.Process.Kill()
		_, _ = p.Process.Wait()
		if t.Failed() {
			t.Logf("the process printed:\n%s", log.String())
		}
	})
	w.eventually(t, "the process to say what it waits for", func(ctx context.Context) error {
		status, body, err := ready(ctx)
		if err == nil && (status != http.StatusServiceUnavailable || !strings.Contains(body, "httproutes")) {
			err = fmt.Errorf("readyz: %d %s", status, body)
		}
		return err
	})
	if _, _, err := w.get(w.ctx, "web.example"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a connection was taken before the cluster was read: %v", err)
	}
	w.must(t, w.StartAPIServer(w.ctx))
	w.serves(t, "web.example")
	if status, body, err := ready(w.ctx); status != http.StatusOK {
		t.Errorf("readyz: %d %s %v", status, body, err)
	}
	w.must(t, p.Process.Signal(syscall.SIGTERM))
	if err := p.Wait(); err != nil {
		t.Errorf("the process ended with %v", err)
	}
}
