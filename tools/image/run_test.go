//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inside makes a command that runs in the unpacked image as the image's user, without an environment, like a container of it.
func inside(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), entrypoint, args...)
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// freePort is a port that nobody has at the moment.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

const site = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: site}
spec:
  ingressClassName: gatehouse
  defaultBackend: {service: {name: site, port: {number: 80}}}
---
apiVersion: v1
kind: Service
metadata: {name: site}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: site-1, labels: {kubernetes.io/service-name: site}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1], conditions: {ready: true}}]
ports: [{name: http, port: %d, protocol: TCP}]
`

// TestRun runs what is in the image, and nothing else, as its user.
func TestRun(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may chroot: the image's program was not run")
	}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "from the backend") }))
	defer backend.Close()
	_, img := index(t, write(t, binary(t)), here)
	dir, _ := unpack(t, img)
	// What a pod would mount.
	if err := os.Mkdir(filepath.Join(dir, "config"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(site, backend.Listener.Addr().(*net.TCPAddr).Port)
	for _, p := range []struct {
		path string
		mode os.FileMode
	}{{"config", 0o755}, {"config/site.yaml", 0o644}} {
		to := filepath.Join(dir, p.path)
		if p.path != "config" {
			if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(to, p.mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ args, want string }{
		{"version", `^gatehouse 1\.2\.3\b`},
		{"check -f /config", `^0 errors, 0 warnings; 2 routes on 2 listeners`},
	} {
		out, err := inside(t, dir, strings.Fields(test.args)...).CombinedOutput()
		if err != nil || !regexp.MustCompile(test.want).Match(out) {
			t.Errorf("gatehouse %s: %v, prints %q; want %s", test.args, err, out, test.want)
		}
	}
	serve(t, dir)
	lowPort(t, dir)
}

// lowPort: with the capability in reach the image's user binds a port below 1024, though it has to raise it itself; in a container that
// drops it, the program starts all the same and binds 10000 higher.
func lowPort(t *testing.T, dir string) {
	t.Helper()
	const port = 809
	for _, test := range []struct {
		name string
		drop bool
		want string
	}{{"with NET_BIND_SERVICE", false, "127.0.0.1:809"}, {"without", true, "127.0.0.1:10809"}} {
		args := []string{"run", "-f", "/config", "--bind=127.0.0.1", "--admin=off", "--health=off", "--drain-grace=0s",
			fmt.Sprintf("--http-port=%d", port), fmt.Sprintf("--https-port=%d", freePort(t))}
		cmd := inside(t, dir, args...)
		if test.drop {
			cmd = dropped(t, dir, args...)
		}
		var logs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &logs, &logs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		got := ""
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if got = fetch("http://" + test.want + "/"); got == "200 from the backend" {
				break
			}
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		err := cmd.Wait()
		if got != "200 from the backend" || err != nil {
			t.Errorf("%s: %s gets %q, it ends with %v and prints:\n%s", test.name, test.want, got, err, logs.String())
		}
	}
}

// dropped is inside, in a process that can never have NET_BIND_SERVICE again, as a container that drops it.
func dropped(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	return exec.CommandContext(t.Context(), "setpriv", append([]string{"--bounding-set=-net_bind_service",
		"chroot", "--userspec=65532:65532", dir, entrypoint}, args...)...)
}

// setCapability gives an unpacked file the attribute that its entry carries.
func setCapability(path, value string) error {
	return syscall.Setxattr(path, "security.capability", []byte(value), 0)
}

// serve runs gatehouse until it is ready, asks it once, and ends it as a kubelet does.
func serve(t *testing.T, dir string) {
	t.Helper()
	health, port := fmt.Sprintf("127.0.0.1:%d", freePort(t)), freePort(t)
	cmd := inside(t, dir, "run", "-f", "/config", "--bind=127.0.0.1", "--admin=off", "--health="+health, "--drain-grace=0s",
		"--access-log=stdout", fmt.Sprintf("--http-port=%d", port), fmt.Sprintf("--https-port=%d", freePort(t)))
	var logs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &logs, &logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ready, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !strings.HasPrefix(fetch("http://"+health+"/readyz"), "200 ") {
		select {
		case err := <-ended:
			t.Fatalf("it ended before it was ready: %v\n%s", err, logs.String())
		case <-ready.Done():
			t.Fatalf("not ready: %s", fetch("http://"+health+"/readyz"))
		case <-time.After(20 * time.Millisecond):
		}
	}
	if got := fetch(fmt.Sprintf("http://127.0.0.1:%d/", port)); got != "200 from the backend" {
		t.Errorf("a request through it gets %q", got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, logs.String())
	}
	if !strings.Contains(logs.String(), `"status":200`) {
		t.Errorf("no line of the access log:\n%s", logs.String())
	}
}

func fetch(url string) string {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(url)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(r.StatusCode, " ", string(b))
}
