package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const modulePath = "github.com/gatehouse-io/gatehouse/test/cluster"

// GatewayAPIVersion is the version of the Gateway API whose CRDs and conformance backends the package uses.
const GatewayAPIVersion = "v1.6.3"

// ModuleDir is the folder of this package's module, found from the working directory, so that it works in a test of any module of the
// repository and in a program run from within it.
func ModuleDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		for _, candidate := range []string{at, filepath.Join(at, "test", "cluster")} {
			if raw, err := os.ReadFile(filepath.Join(candidate, "go.mod")); err == nil &&
				strings.HasPrefix(string(raw), "module "+modulePath+"\n") {
				return candidate, nil
			}
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("no module %s above %s: run from within the repository", modulePath, dir)
		}
	}
}

// CacheDir is the repository's .cache, where built programs are kept.
func CacheDir() (string, error) {
	dir, err := ModuleDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(filepath.Dir(dir)), ".cache"), nil
}

// prepareControlPlane is BuildControlPlane in the shape of Lab's preparations.
func prepareControlPlane(ctx context.Context) error {
	_, err := BuildControlPlane(ctx, os.Stderr)
	return err
}

// BuildControlPlane returns the path of the control plane's binary. The first call for a version of its module builds it, which takes
// about six minutes on two cores, and says so on progress; later calls find it in the cache.
func BuildControlPlane(ctx context.Context, progress io.Writer) (string, error) {
	module, err := ModuleDir()
	if err != nil {
		return "", err
	}
	src := filepath.Join(module, "controlplane")
	hash := sha256.New()
	version := "0.0.0"
	// "1" is the version of how it is built: raise it when flags change.
	hash.Write([]byte("1"))
	for _, name := range []string{"go.mod", "go.sum", "main.go", "etcd.go"} {
		raw, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			return "", fmt.Errorf("looking at the control plane's source: %w", err)
		}
		hash.Write(raw)
		if _, rest, ok := strings.Cut(string(raw), "k8s.io/kubernetes v"); ok && name == "go.mod" {
			version = strings.Fields(rest)[0]
		}
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "bin", fmt.Sprintf("controlplane-%s-%x", version, hash.Sum(nil)[:4]))
	what := "building the control plane of Kubernetes " + version + "; about 6 minutes the first time"
	return path, buildOnce(ctx, progress, path, what, src, kubernetesVersion(version)...)
}

// kubernetesVersion is the linker's flags that make a build of ours say which version of Kubernetes it is.
func kubernetesVersion(version string) []string {
	part := strings.SplitN(version, ".", 3)
	var flags []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags = append(flags, "-X", pkg+".gitVersion=v"+version, "-X", pkg+".gitMajor="+part[0], "-X", pkg+".gitMinor="+part[1])
	}
	return flags
}

// BuildProgram builds the package of a module, static and as small as it gets, to serve as an image's program. The go command decides
// whether there is anything to do.
func BuildProgram(ctx context.Context, moduleDir, pkg, path string) error {
	return build(ctx, moduleDir, pkg, path)
}

func build(ctx context.Context, moduleDir, pkg, path string, link ...string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w "+strings.Join(link, " "), "-o", path, pkg)
	cmd.Dir = moduleDir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s in %s: %w\n%s", pkg, moduleDir, err, out)
	}
	return nil
}

// buildOnce builds the program in a module's root to path unless the file is there. Of several processes that want it, one builds and the others wait.
func buildOnce(ctx context.Context, progress io.Writer, path, what, moduleDir string, link ...string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	start := time.Now()
	fmt.Fprintln(progress, what)
	done := make(chan error, 1)
	go func() { done <- build(ctx, moduleDir, ".", path+".new", link...) }()
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return err
			}
			fmt.Fprintf(progress, "built %s in %s\n", filepath.Base(path), time.Since(start).Round(time.Second))
			return os.Rename(path+".new", path)
		case <-tick.C:
			fmt.Fprintf(progress, "still building, %s so far\n", time.Since(start).Round(time.Second))
		}
	}
}

// lockFile waits for an exclusive lock. The file stays; the lock ends with the process if not before.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// moduleSource is the folder of a module's source, fetched if the module cache does not have it.
func moduleSource(ctx context.Context, module, version string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module+"@"+version)
	cmd.Dir = os.TempDir()
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	out, err := cmd.Output()
	var m struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &m); err == nil && jsonErr != nil {
		err = jsonErr
	}
	if m.Error != "" {
		err = errors.New(m.Error)
	}
	if err != nil {
		return "", fmt.Errorf("fetching module %s %s: %w", module, version, err)
	}
	return m.Dir, nil
}

// BuildEchoBasic returns the path of the Gateway API's echo backend, built from its published source. That source is a module whose
// go.mod has another name so that the module around it can be imported; we copy it to give the file its name, as upstream's image does.
func BuildEchoBasic(ctx context.Context, progress io.Writer) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "bin", "echo-basic-"+GatewayAPIVersion)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	src, err := moduleSource(ctx, "sigs.k8s.io/gateway-api/conformance", GatewayAPIVersion)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "echo-basic-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(src, "echo-basic"))); err != nil {
		return "", fmt.Errorf("copying the echo backend: %w", err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		if err := os.Rename(filepath.Join(dir, "."+name), filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("copying the echo backend: %w", err)
		}
	}
	return path, buildOnce(ctx, progress, path, "building the echo backend", dir)
}

// GatewayAPICRDs reads the CRDs of a channel, "standard" or "experimental", for Apply. It reads the module cache and, if the module
// is not there yet, the network: call it once outside of the lab, among Lab's preparations, on a machine whose cache may be empty.
func GatewayAPICRDs(ctx context.Context, channel string) ([]byte, error) {
	src, err := moduleSource(ctx, "sigs.k8s.io/gateway-api", GatewayAPIVersion)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(src, "config", "crd", channel, "gateway.networking.*.yaml"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no CRDs of channel %q in %s: want standard or experimental", channel, src)
	}
	var all []byte
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		all = append(all, "\n---\n"...)
		all = append(all, raw...)
	}
	return all, nil
}

// ConformanceImages are the images that the Gateway API's conformance manifests name, as far as programs stand for them here. For
// coredns, which only the UDP tests talk to, the echo backend stands in, so that the manifests' pods become ready.
func ConformanceImages(ctx context.Context, progress io.Writer) ([]Image, error) {
	echo, err := BuildEchoBasic(ctx, progress)
	if err != nil {
		return nil, err
	}
	return []Image{
		{Name: "gateway-api/echo-basic", Program: echo, Entrypoint: "/echo-basic", User: 65532},
		{Name: "coredns/coredns", Program: echo, Entrypoint: "/coredns"},
	}, nil
}
