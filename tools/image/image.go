package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// What the Dockerfile says too; a test compares the two.
const (
	entrypoint = "/gatehouse"
	user       = "65532:65532"
	port       = "9902/tcp" // health; the others are those of listeners
	passwd     = "gatehouse:x:65532:65532:gatehouse:/:/sbin/nologin"
	group      = "gatehouse:x:65532:"
	source     = "https://github.com/gatehouse-io/gatehouse"
)

// program is gatehouse for one platform.
type program struct{ system, arch, file string }

// options of one run.
type options struct {
	out, name, version, revision, push string
	created                            time.Time
	programs                           []program
	stdout                             io.Writer // for what was written, a line each
}

// write builds the images and writes them to o.out.
func (o *options) write() error {
	tag, err := name.NewTag(o.name + ":" + o.version)
	if err != nil {
		return fmt.Errorf("naming the image: %w", err)
	}
	if err := o.clear(); err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	base, err := baseLayer()
	if err != nil {
		return fmt.Errorf("making the base layer: %w", err)
	}
	index := mutate.Annotations(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), o.labels()).(v1.ImageIndex)
	for _, b := range o.programs {
		img, err := o.image(b, base)
		if err != nil {
			return fmt.Errorf("making the image for %s/%s: %w", b.system, b.arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: b.system, Architecture: b.arch}}})
		file := filepath.Join(o.out, fmt.Sprintf("gatehouse-%s-%s.tar", b.system, b.arch))
		if err := tarball.WriteToFile(file, tag, img); err != nil {
			return fmt.Errorf("writing %s: %w", file, err)
		}
		fmt.Fprintln(o.stdout, file)
	}
	l, err := layout.Write(filepath.Join(o.out, "oci"), empty.Index)
	if err != nil {
		return fmt.Errorf("writing the layout: %w", err)
	}
	if err := l.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": o.version})); err != nil {
		return fmt.Errorf("writing the layout: %w", err)
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Fprintln(o.stdout, filepath.Join(o.out, "oci"), digest)
	return o.pushIndex(index)
}

// clear removes what an earlier run wrote, and nothing else.
func (o *options) clear() error {
	old, err := filepath.Glob(filepath.Join(o.out, "gatehouse-*.tar"))
	if err != nil {
		return err
	}
	for _, f := range append(old, filepath.Join(o.out, "oci")) {
		if err := os.RemoveAll(f); err != nil {
			return err
		}
	}
	return nil
}

// pushIndex sends the index to a registry, logged in as Docker's configuration says.
func (o *options) pushIndex(index v1.ImageIndex) error {
	if o.push == "" {
		return nil
	}
	ref, err := name.ParseReference(o.push)
	if err != nil {
		return err
	}
	if err := remote.WriteIndex(ref, index, remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("pushing to %s: %w", ref, err)
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Fprintln(o.stdout, "pushed", ref.Context().Digest(digest.String()))
	return nil
}

// image is the base layer with the binary on top.
func (o *options) image(b program, base v1.Layer) (v1.Image, error) {
	data, err := os.ReadFile(b.file)
	if err != nil {
		return nil, err
	}
	app, err := layer(o.created, file{path: entrypoint[1:], mode: 0o755, data: data, bind: true})
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	created := v1.Time{Time: o.created}
	img, err = mutate.Append(img,
		mutate.Addendum{Layer: base, MediaType: types.OCILayer, History: v1.History{CreatedBy: "tools/image: users and certificates", Created: created}},
		mutate.Addendum{Layer: app, MediaType: types.OCILayer, History: v1.History{CreatedBy: "tools/image: gatehouse " + o.version, Created: created}})
	if err != nil {
		return nil, err
	}
	old, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config := old.DeepCopy()
	config.OS, config.Architecture, config.Created = b.system, b.arch, created
	config.Config = v1.Config{
		Entrypoint: []string{entrypoint}, User: user, WorkingDir: "/", StopSignal: "SIGTERM",
		ExposedPorts: map[string]struct{}{port: {}}, Labels: o.labels(),
	}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return nil, err
	}
	annotated, ok := mutate.Annotations(img, o.labels()).(v1.Image)
	if !ok {
		return nil, errors.New("annotations took the image away")
	}
	return annotated, nil
}

// labels are those of the OCI image specification.
func (o *options) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":         "gatehouse",
		"org.opencontainers.image.description":   "The edge of a Kubernetes cluster: ingress controller and API gateway",
		"org.opencontainers.image.source":        source,
		"org.opencontainers.image.url":           source,
		"org.opencontainers.image.documentation": source + "/blob/main/docs/README.md",
		"org.opencontainers.image.licenses":      "Apache-2.0",
		"org.opencontainers.image.version":       o.version,
		"org.opencontainers.image.revision":      o.revision,
		"org.opencontainers.image.created":       o.created.Format(time.RFC3339),
	}
}
