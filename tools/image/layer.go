package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"io"
	"path"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// file is one file of a layer. Folders above it come by themselves; everything belongs to root and nobody else may write to it.
type file struct {
	path string
	mode int64
	data []byte
	bind bool // carries bindCapability
}

// bindCapability is the value of the attribute security.capability (struct vfs_cap_data, capabilities(7)) for NET_BIND_SERVICE,
// permitted and not effective: with the effective flag the program would not start in a container without the capability. Gatehouse puts
// it into effect itself, where the container has it.
const bindCapability = "\x00\x00\x00\x02" + "\x00\x04\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"

// baseLayer has what gatehouse looks for in a system: names of users, and certificates to trust. Its times are 1970, so that it is the
// same in all versions and nodes keep it.
func baseLayer() (v1.Layer, error) {
	return layer(time.Unix(0, 0).UTC(),
		file{path: "etc/group", mode: 0o644, data: []byte(group + "\n")},
		file{path: "etc/passwd", mode: 0o644, data: []byte(passwd + "\n")},
		file{path: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, data: roots()})
}

// roots are Mozilla's, as the Go project packs them, in PEM. Those that Mozilla trusts only with a condition (issued before some
// day) are left out: a file of PEM cannot say it, and without it they would be trusted more than Mozilla does.
func roots() []byte {
	var b bytes.Buffer
	for r := range bundle.Roots() {
		if r.Constraint == nil {
			// Writing to a bytes.Buffer does not fail.
			_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate})
		}
	}
	return b.Bytes()
}

// layer packs files, all of one time.
func layer(at time.Time, files ...file) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	seen := map[string]bool{".": true}
	for _, f := range files {
		if err := folders(w, path.Dir(f.path), at, seen); err != nil {
			return nil, err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: f.mode, Size: int64(len(f.data)), ModTime: at, Format: tar.FormatPAX}
		if f.bind {
			h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": bindCapability}
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
}

// folders writes dir and those above it that are not there yet.
func folders(w *tar.Writer, dir string, at time.Time, seen map[string]bool) error {
	if seen[dir] {
		return nil
	}
	if err := folders(w, path.Dir(dir), at, seen); err != nil {
		return err
	}
	seen[dir] = true
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: at, Format: tar.FormatPAX})
}
