package main

import (
	"archive/tar"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// here is the platform whose image the tests unpack and run; other is one that is only packed, so that nothing is compiled for it.
const (
	here  = runtime.GOARCH
	other = "s390x"
)

var created = time.Date(2026, 11, 5, 0, 0, 0, 0, time.UTC)

// root is the repository.
var root = filepath.Join("..", "..")

// build builds gatehouse from the module in dir as `make image` does.
func build(t *testing.T, dir, to string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=1.2.3", "-o", to, "./cmd/gatehouse")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+here)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building gatehouse: %v\n%s", err, out)
	}
}

var once struct {
	sync.Once
	dir string
}

// binary is gatehouse built from the checkout, once for all tests.
func binary(t *testing.T) string {
	t.Helper()
	once.Do(func() {
		dir, err := os.MkdirTemp("", "gatehouse-image")
		if err != nil {
			t.Fatal(err)
		}
		build(t, root, filepath.Join(dir, "gatehouse"))
		once.dir = dir
	})
	if once.dir == "" {
		t.Skip("gatehouse was not built: see the test before")
	}
	return filepath.Join(once.dir, "gatehouse")
}

func TestMain(m *testing.M) {
	code := m.Run()
	if once.dir != "" {
		_ = os.RemoveAll(once.dir)
	}
	os.Exit(code)
}

// write makes the images of a binary and returns the folder.
func write(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	filler := filepath.Join(t.TempDir(), "filler")
	if err := os.WriteFile(filler, []byte("not a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := run([]string{"-out", dir, "-name", "example.com/edge", "-version", "1.2.3", "-revision", "abc", "-epoch", fmt.Sprint(created.Unix()),
		"linux/" + here + "=" + program, "linux/" + other + "=" + filler}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// index opens the layout in dir: the one index of it, and its image for a platform.
func index(t *testing.T, dir, arch string) (v1.ImageIndex, v1.Image) {
	t.Helper()
	l, err := layout.ImageIndexFromPath(filepath.Join(dir, "oci"))
	if err != nil {
		t.Fatal(err)
	}
	outer, err := l.IndexManifest()
	if err != nil || len(outer.Manifests) != 1 {
		t.Fatalf("index.json: %+v, %v; want one entry", outer, err)
	}
	x, err := l.ImageIndex(outer.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := x.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range inner.Manifests {
		if m.Platform != nil && m.Platform.OS == "linux" && m.Platform.Architecture == arch {
			img, err := x.Image(m.Digest)
			if err != nil {
				t.Fatal(err)
			}
			return x, img
		}
	}
	t.Fatalf("no image for linux/%s in %+v", arch, inner)
	return nil, nil
}

// unpack writes the layers of an image into a folder and returns a line for each entry.
func unpack(t *testing.T, img v1.Image) (string, []string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for n, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for in := tar.NewReader(r); ; {
			h, err := in.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf("layer %d: %c %04o %d:%d %s %s%s", n, h.Typeflag, h.Mode, h.Uid, h.Gid,
				h.ModTime.UTC().Format(time.DateOnly), h.Name, extras(h)))
			if h.Mode&0o7000 != 0 || h.Mode&0o022 != 0 {
				t.Errorf("%s: mode %04o: setuid, setgid, sticky, or others may write", h.Name, h.Mode)
			}
			extract(t, filepath.Join(dir, filepath.FromSlash(h.Name)), h, in)
		}
		_ = r.Close()
	}
	return dir, lines
}

// extras are what an entry has beside name, mode, owner and time: the capability of the program.
func extras(h *tar.Header) string {
	var out string
	for k := range h.PAXRecords {
		out += " " + k
	}
	return out + h.Uname + h.Gname + h.Linkname
}

func extract(t *testing.T, to string, h *tar.Header, in io.Reader) {
	t.Helper()
	var err error
	switch h.Typeflag {
	case tar.TypeDir:
		err = os.Mkdir(to, 0o755)
	case tar.TypeReg:
		var b []byte
		if b, err = io.ReadAll(in); err == nil {
			err = os.WriteFile(to, b, 0o600)
		}
	default:
		t.Fatalf("%s: entry of type %c", h.Name, h.Typeflag)
	}
	if c := h.PAXRecords["SCHILY.xattr.security.capability"]; err == nil && c != "" && os.Getuid() == 0 {
		err = setCapability(to, c)
	}
	if err == nil {
		err = os.Chmod(to, os.FileMode(h.Mode)) // whatever the umask
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestFiles(t *testing.T) {
	_, img := index(t, write(t, binary(t)), here)
	dir, lines := unpack(t, img)
	want := []string{
		"layer 0: 5 0755 0:0 1970-01-01 etc/",
		"layer 0: 0 0644 0:0 1970-01-01 etc/group",
		"layer 0: 0 0644 0:0 1970-01-01 etc/passwd",
		"layer 0: 5 0755 0:0 1970-01-01 etc/ssl/",
		"layer 0: 5 0755 0:0 1970-01-01 etc/ssl/certs/",
		"layer 0: 0 0644 0:0 1970-01-01 etc/ssl/certs/ca-certificates.crt",
		"layer 1: 0 0755 0:0 2026-11-05 gatehouse SCHILY.xattr.security.capability",
	}
	if d := cmp.Diff(want, lines); d != "" {
		t.Errorf("files of the image (-want +got):\n%s", d)
	}
	for f, want := range map[string]string{"etc/passwd": passwd + "\n", "etc/group": group + "\n"} {
		if b, err := os.ReadFile(filepath.Join(dir, f)); err != nil || string(b) != want {
			t.Errorf("%s = %q, %v; want %q", f, b, err, want)
		}
	}
	if !strings.HasPrefix(passwd, "gatehouse:x:"+user+":") {
		t.Errorf("passwd %q does not name user %s", passwd, user)
	}
	checkRoots(t, filepath.Join(dir, "etc/ssl/certs/ca-certificates.crt"))
}

func checkRoots(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for p, rest := pem.Decode(b); p != nil; p, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(p.Bytes)
		if err != nil || !c.IsCA {
			t.Errorf("certificate %d: %v, or it is no CA's", n, err)
		}
		n++
		b = rest
	}
	if len(strings.TrimSpace(string(b))) != 0 {
		t.Errorf("%d bytes behind the last certificate", len(b))
	}
	if n < 80 { // Mozilla trusts about 140
		t.Errorf("%d roots: too few", n)
	}
}

func TestConfig(t *testing.T) {
	dir := write(t, binary(t))
	labels := map[string]string{
		"org.opencontainers.image.created":       "2026-11-05T00:00:00Z",
		"org.opencontainers.image.description":   "The edge of a Kubernetes cluster: ingress controller and API gateway",
		"org.opencontainers.image.documentation": "https://github.com/gatehouse-io/gatehouse/blob/main/docs/README.md",
		"org.opencontainers.image.licenses":      "Apache-2.0",
		"org.opencontainers.image.revision":      "abc",
		"org.opencontainers.image.source":        "https://github.com/gatehouse-io/gatehouse",
		"org.opencontainers.image.title":         "gatehouse",
		"org.opencontainers.image.url":           "https://github.com/gatehouse-io/gatehouse",
		"org.opencontainers.image.version":       "1.2.3",
	}
	want := v1.Config{
		User: "65532:65532", Entrypoint: []string{"/gatehouse"}, WorkingDir: "/", StopSignal: "SIGTERM",
		ExposedPorts: map[string]struct{}{"9902/tcp": {}}, Labels: labels,
	}
	for _, arch := range []string{here, other} {
		x, img := index(t, dir, arch)
		if err := errors.Join(validate.Index(x), validate.Image(img)); err != nil {
			t.Errorf("%s: not valid: %v", arch, err)
		}
		c, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, c.Config); d != "" {
			t.Errorf("%s: config (-want +got):\n%s", arch, d)
		}
		if c.OS != "linux" || c.Architecture != arch || !c.Created.Equal(created) {
			t.Errorf("made for %s/%s at %s, want linux/%s at %s", c.OS, c.Architecture, c.Created, arch, created)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(labels, m.Annotations); d != "" {
			t.Errorf("%s: annotations (-want +got):\n%s", arch, d)
		}
		tag, err := name.NewTag("example.com/edge:1.2.3")
		if err != nil {
			t.Fatal(err)
		}
		packed, err := tarball.ImageFromPath(filepath.Join(dir, "gatehouse-linux-"+arch+".tar"), &tag)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(configName(t, img), configName(t, packed)); d != "" {
			t.Errorf("%s: the file for docker load holds another image (-layout +file):\n%s", arch, d)
		}
	}
}

// TestPush sends the images to a registry and finds them there.
func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	place := strings.TrimPrefix(server.URL, "http://") + "/edge/gatehouse:1.2.3"
	filler := filepath.Join(t.TempDir(), "filler")
	if err := os.WriteFile(filler, []byte("not a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, out := t.TempDir(), &strings.Builder{}
	if err := run([]string{"-out", dir, "-version", "1.2.3", "-push", place, "linux/" + here + "=" + filler}, out); err != nil {
		t.Fatal(err)
	}
	x, _ := index(t, dir, here)
	want, err := x.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(place)
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := pushed.Digest(); err != nil || got != want || validate.Index(pushed) != nil {
		t.Errorf("the registry has %v, %v; want %v", got, err, want)
	}
	if line := "pushed " + strings.TrimSuffix(place, ":1.2.3") + "@" + want.String() + "\n"; !strings.HasSuffix(out.String(), line) {
		t.Errorf("it prints %q, want %q at the end", out, line)
	}
}

func configName(t *testing.T, img v1.Image) string {
	t.Helper()
	h, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// TestReproducible builds twice, in two folders, the second as small as what the Dockerfile sees: that is enough to build, and gives the
// same bytes.
func TestReproducible(t *testing.T) {
	again := filepath.Join(t.TempDir(), "gatehouse")
	build(t, sent(t), again)
	var digests []string
	for _, b := range []string{binary(t), again} {
		x, _ := index(t, write(t, b), here)
		d, err := x.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("one commit, two digests: %q", digests)
	}
}

// TestClear holds that only what an earlier run wrote goes.
func TestClear(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"gatehouse-linux-old.tar", "oci/index.json", "mine"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o755), os.WriteFile(filepath.Join(dir, f), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := (&options{out: dir}).clear(); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "mine" {
		t.Errorf("left: %q, %v; want mine", left, err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"-out", "x"}, {"linux/amd64=x"}, {"-out", "x", "linux=x"}, {"-out", "x", "-version", "a b", "linux/amd64=x"}} {
		if err := run(args, io.Discard); err == nil {
			t.Errorf("run(%q) succeeds", args)
		}
	}
}
