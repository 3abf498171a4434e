package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// volume is one volume of a pod: a folder that its containers see.
type volume struct {
	spec     *corev1.Volume
	dir      string
	writable bool
	content  content // what the folder holds now; nil for an empty folder that is the pod's own
	tokens   map[string]token
}

// content is a volume's files by path.
type content map[string]file

type file struct {
	data []byte
	mode fs.FileMode
}

// token is a service account token that is asked for anew before it expires.
type token struct {
	value string
	renew time.Time
}

// mountVolumes makes all volumes, and waits until what they need exists. False: the pod is ending.
func (p *pod) mountVolumes() bool {
	o := p.latest.Load()
	p.volumes = map[string]*volume{}
	for i := range o.Spec.Volumes {
		v := &volume{spec: &o.Spec.Volumes[i], dir: filepath.Join(p.dir, "volumes", o.Spec.Volumes[i].Name), tokens: map[string]token{}}
		v.writable = v.spec.EmptyDir != nil
		p.volumes[v.spec.Name] = v
	}
	told := ""
	for !p.isEnding() {
		err := p.fillVolumes()
		if err == nil {
			return true
		}
		p.setProblem("ContainerCreating", err)
		if err.Error() != told {
			told = err.Error()
			p.event("FailedMount", told)
		}
		select {
		case <-p.refresh:
		case <-time.After(time.Second):
		case <-p.ending:
		case <-p.ctx.Done():
		}
	}
	return false
}

// keepVolumes follows the objects that volumes show, until ctx ends. What an object lost stays as it was, as with a kubelet.
func (p *pod) keepVolumes(ctx context.Context) {
	told := ""
	for {
		wait := time.Minute
		for _, v := range p.volumes {
			for _, t := range v.tokens {
				wait = min(wait, max(time.Until(t.renew), time.Second))
			}
		}
		select {
		case <-p.refresh:
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		if err := p.fillVolumes(); err != nil && err.Error() != told && ctx.Err() == nil {
			told = err.Error()
			p.event("FailedMount", told)
		}
	}
}

// fillVolumes brings all volumes up to date, and returns what it could not.
func (p *pod) fillVolumes() error {
	o := p.latest.Load()
	var errs []error
	for _, v := range p.volumes {
		if err := v.fill(p, o); err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", v.spec.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (v *volume) fill(p *pod, o *corev1.Pod) error {
	var group *int64
	if sc := o.Spec.SecurityContext; sc != nil {
		group = sc.FSGroup
	}
	if v.writable {
		if _, err := os.Stat(v.dir); err == nil {
			return nil
		}
		return makeDir(v.dir, 0o777, group)
	}
	next, err := v.read(p, o)
	if err != nil {
		return err
	}
	if v.content != nil && maps.EqualFunc(v.content, next, func(a, b file) bool {
		return a.mode == b.mode && bytes.Equal(a.data, b.data)
	}) {
		return nil
	}
	if err := writeVolume(v.dir, next, group); err != nil {
		return err
	}
	v.content = next
	return nil
}

// read gathers what the volume is to hold.
func (v *volume) read(p *pod, o *corev1.Pod) (content, error) {
	into := content{}
	s := v.spec.VolumeSource
	switch {
	case s.Secret != nil:
		return into, p.addSecret(into, s.Secret.SecretName, s.Secret.Items, s.Secret.Optional, ptr.Deref(s.Secret.DefaultMode, 0o644))
	case s.ConfigMap != nil:
		return into, p.addConfigMap(into, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, ptr.Deref(s.ConfigMap.DefaultMode, 0o644))
	case s.DownwardAPI != nil:
		return into, p.addDownward(into, o, s.DownwardAPI.Items, ptr.Deref(s.DownwardAPI.DefaultMode, 0o644))
	case s.Projected != nil:
		mode := ptr.Deref(s.Projected.DefaultMode, 0o644)
		for _, x := range s.Projected.Sources {
			if err := v.addProjected(into, p, o, x, mode); err != nil {
				return nil, err
			}
		}
		return into, nil
	}
	return nil, errors.New("the test cluster has only emptyDir, secret, configMap, downwardAPI and projected volumes")
}

func (v *volume) addProjected(into content, p *pod, o *corev1.Pod, x corev1.VolumeProjection, mode int32) error {
	switch {
	case x.Secret != nil:
		return p.addSecret(into, x.Secret.Name, x.Secret.Items, x.Secret.Optional, mode)
	case x.ConfigMap != nil:
		return p.addConfigMap(into, x.ConfigMap.Name, x.ConfigMap.Items, x.ConfigMap.Optional, mode)
	case x.DownwardAPI != nil:
		return p.addDownward(into, o, x.DownwardAPI.Items, mode)
	case x.ServiceAccountToken != nil:
		value, err := v.token(p, o, x.ServiceAccountToken)
		into[x.ServiceAccountToken.Path] = file{[]byte(value), fs.FileMode(mode)}
		return err
	}
	return errors.New("the test cluster does not know this projection")
}

func (p *pod) addSecret(into content, name string, items []corev1.KeyToPath, optional *bool, mode int32) error {
	s, err := p.a.secrets.Secrets(p.namespace).Get(name)
	if err != nil {
		return absent(err, optional)
	}
	return addItems(into, s.Data, items, optional, mode)
}

func (p *pod) addConfigMap(into content, name string, items []corev1.KeyToPath, optional *bool, mode int32) error {
	m, err := p.a.configMaps.ConfigMaps(p.namespace).Get(name)
	if err != nil {
		return absent(err, optional)
	}
	data := maps.Clone(m.BinaryData)
	if data == nil {
		data = map[string][]byte{}
	}
	for k, v := range m.Data {
		data[k] = []byte(v)
	}
	return addItems(into, data, items, optional, mode)
}

func absent(err error, optional *bool) error {
	if apierrors.IsNotFound(err) && ptr.Deref(optional, false) {
		return nil
	}
	return err
}

func addItems(into content, data map[string][]byte, items []corev1.KeyToPath, optional *bool, mode int32) error {
	if items == nil {
		for k, v := range data {
			into[k] = file{v, fs.FileMode(mode)}
		}
		return nil
	}
	for _, item := range items {
		v, ok := data[item.Key]
		if !ok {
			if ptr.Deref(optional, false) {
				continue
			}
			return fmt.Errorf("no key %q", item.Key)
		}
		into[item.Path] = file{v, fs.FileMode(ptr.Deref(item.Mode, mode))}
	}
	return nil
}

func (p *pod) addDownward(into content, o *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode int32) error {
	for _, item := range items {
		var value string
		var err error
		if item.FieldRef != nil {
			value, err = p.field(o, item.FieldRef.FieldPath)
		} else if item.ResourceFieldRef != nil {
			value, err = p.resourceField(o, nil, item.ResourceFieldRef)
		}
		if err != nil {
			return err
		}
		into[item.Path] = file{[]byte(value), fs.FileMode(ptr.Deref(item.Mode, mode))}
	}
	return nil
}

// token is a token bound to the pod, asked for anew when four fifths of its life are over.
func (v *volume) token(p *pod, o *corev1.Pod, s *corev1.ServiceAccountTokenProjection) (string, error) {
	if t := v.tokens[s.Path]; time.Now().Before(t.renew) {
		return t.value, nil
	}
	request := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		ExpirationSeconds: s.ExpirationSeconds,
		BoundObjectRef:    &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.name, UID: p.uid},
	}}
	if s.Audience != "" {
		request.Spec.Audiences = []string{s.Audience}
	}
	accounts := p.a.c.node.CoreV1().ServiceAccounts(p.namespace)
	got, err := accounts.CreateToken(p.ctx, o.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return v.tokens[s.Path].value, fmt.Errorf("asking for a service account token: %w", err)
	}
	life := time.Until(got.Status.ExpirationTimestamp.Time)
	v.tokens[s.Path] = token{got.Status.Token, time.Now().Add(life * 4 / 5)}
	return got.Status.Token, nil
}

// writeVolume replaces all files of a folder at once, the way programs that watch it know from a kubelet: the files lie in a folder of
// their own, ..data links to that, and each name links into ..data.
func writeVolume(dir string, next content, group *int64) error {
	if err := makeDir(dir, 0o755, group); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(dir, ".."+time.Now().UTC().Format("2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := makeDir(fresh, 0o755, group); err != nil {
		return err
	}
	names := map[string]bool{}
	for name, f := range next {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("path %q leads out of the volume", name)
		}
		path := filepath.Join(fresh, name)
		if err := makeDir(filepath.Dir(path), 0o755, group); err != nil {
			return err
		}
		if err := writeFile(path, f, group); err != nil {
			return err
		}
		names[strings.Split(filepath.Clean(name), "/")[0]] = true
	}
	data := filepath.Join(dir, "..data")
	old, _ := os.Readlink(data)
	if err := os.Symlink(filepath.Base(fresh), data+"_tmp"); err != nil {
		return err
	}
	if err := os.Rename(data+"_tmp", data); err != nil {
		return err
	}
	for name := range names {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "..") && !names[e.Name()] {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	if old != "" {
		return os.RemoveAll(filepath.Join(dir, old))
	}
	return nil
}

func makeDir(path string, mode fs.FileMode, group *int64) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if group != nil {
		mode |= fs.ModeSetgid | 0o070
		if err := chgrp(path, *group); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

func writeFile(path string, f file, group *int64) error {
	if err := os.WriteFile(path, f.data, f.mode); err != nil {
		return err
	}
	mode := f.mode
	if group != nil {
		mode |= 0o440
		if err := chgrp(path, *group); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// chgrp gives a file to a group. In a lab with one user only, all is that user's anyway.
func chgrp(path string, group int64) error {
	if oneUser() {
		return nil
	}
	return os.Chown(path, -1, int(group))
}
