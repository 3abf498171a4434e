package cluster

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// variable is one variable of a container's environment.
type variable struct{ name, value string }

// environment is that of the container; later entries win over earlier ones of the same name.
func (c *container) environment(o *corev1.Pod, image *Image) ([]variable, error) {
	env := []variable{
		{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		{"HOSTNAME", c.p.hostname()},
		{"KUBERNETES_SERVICE_HOST", nth(serviceNet4, 1).String()},
		{"KUBERNETES_SERVICE_PORT", "443"},
		{"KUBERNETES_SERVICE_PORT_HTTPS", "443"},
	}
	for _, e := range image.Env {
		name, value, _ := strings.Cut(e, "=")
		env = setVariable(env, name, value)
	}
	for _, from := range c.spec.EnvFrom {
		values, err := c.envFrom(from)
		if err != nil {
			return nil, err
		}
		for k, v := range values {
			env = setVariable(env, from.Prefix+k, v)
		}
	}
	for _, e := range c.spec.Env {
		value := expand(e.Value, env)
		if e.ValueFrom != nil {
			v, ok, err := c.envValue(o, e.ValueFrom)
			if err != nil {
				return nil, fmt.Errorf("env %s: %w", e.Name, err)
			}
			if !ok {
				continue
			}
			value = v
		}
		env = setVariable(env, e.Name, value)
	}
	return env, nil
}

func setVariable(env []variable, name, value string) []variable {
	env = slices.DeleteFunc(env, func(v variable) bool { return v.name == name })
	return append(env, variable{name, value})
}

// expand replaces $(NAME) by the variable's value; $$ is a dollar, and what names no variable stays.
func expand(s string, env []variable) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 == len(s) {
			return out.String() + s
		}
		out.WriteString(s[:i])
		s = s[i:]
		end := strings.IndexByte(s, ')')
		switch {
		case s[1] == '$':
			out.WriteByte('$')
			s = s[2:]
		case s[1] == '(' && end > 0:
			name := s[2:end]
			if j := slices.IndexFunc(env, func(v variable) bool { return v.name == name }); j >= 0 {
				out.WriteString(env[j].value)
			} else {
				out.WriteString(s[:end+1])
			}
			s = s[end+1:]
		default:
			out.WriteByte('$')
			s = s[1:]
		}
	}
}

func (c *container) envFrom(from corev1.EnvFromSource) (map[string]string, error) {
	switch {
	case from.ConfigMapRef != nil:
		m, err := c.p.a.configMaps.ConfigMaps(c.p.namespace).Get(from.ConfigMapRef.Name)
		if apierrors.IsNotFound(err) && ptr.Deref(from.ConfigMapRef.Optional, false) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return m.Data, nil
	case from.SecretRef != nil:
		s, err := c.p.a.secrets.Secrets(c.p.namespace).Get(from.SecretRef.Name)
		if apierrors.IsNotFound(err) && ptr.Deref(from.SecretRef.Optional, false) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		values := map[string]string{}
		for k, v := range s.Data {
			values[k] = string(v)
		}
		return values, nil
	}
	return nil, nil
}

// envValue is the value that a source gives; false if an optional source is not there.
func (c *container) envValue(o *corev1.Pod, from *corev1.EnvVarSource) (string, bool, error) {
	switch {
	case from.FieldRef != nil:
		v, err := c.p.field(o, from.FieldRef.FieldPath)
		return v, true, err
	case from.ResourceFieldRef != nil:
		v, err := c.p.resourceField(o, c.spec, from.ResourceFieldRef)
		return v, true, err
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		s, err := c.p.a.secrets.Secrets(c.p.namespace).Get(ref.Name)
		if err == nil {
			if v, ok := s.Data[ref.Key]; ok {
				return string(v), true, nil
			}
			err = fmt.Errorf("secret %q has no key %q", ref.Name, ref.Key)
		}
		if ptr.Deref(ref.Optional, false) {
			return "", false, nil
		}
		return "", false, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		m, err := c.p.a.configMaps.ConfigMaps(c.p.namespace).Get(ref.Name)
		if err == nil {
			if v, ok := m.Data[ref.Key]; ok {
				return v, true, nil
			}
			err = fmt.Errorf("config map %q has no key %q", ref.Name, ref.Key)
		}
		if ptr.Deref(ref.Optional, false) {
			return "", false, nil
		}
		return "", false, err
	}
	return "", false, fmt.Errorf("the test cluster does not know this source")
}

// field is a field of the pod, by the downward API's path.
func (p *pod) field(o *corev1.Pod, path string) (string, error) {
	if name, rest, ok := strings.Cut(path, "['"); ok {
		key := strings.TrimSuffix(rest, "']")
		switch name {
		case "metadata.labels":
			return o.Labels[key], nil
		case "metadata.annotations":
			return o.Annotations[key], nil
		}
	}
	var addrs []string
	for _, a := range p.addrs {
		addrs = append(addrs, a.String())
	}
	switch path {
	case "metadata.name":
		return o.Name, nil
	case "metadata.namespace":
		return o.Namespace, nil
	case "metadata.uid":
		return string(o.UID), nil
	case "metadata.labels":
		return pairs(o.Labels), nil
	case "metadata.annotations":
		return pairs(o.Annotations), nil
	case "spec.nodeName":
		return o.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return o.Spec.ServiceAccountName, nil
	case "status.podIP":
		return addrs[0], nil
	case "status.podIPs":
		return strings.Join(addrs, ","), nil
	case "status.hostIP":
		return p.node.addrs[0].String(), nil
	case "status.hostIPs":
		var all []string
		for _, a := range p.node.addrs {
			all = append(all, a.String())
		}
		return strings.Join(all, ","), nil
	}
	return "", fmt.Errorf("the test cluster does not know the field %q", path)
}

// pairs is a map as the downward API writes it into a file.
func pairs(m map[string]string) string {
	var lines []string
	for k, v := range m {
		lines = append(lines, k+"="+strconv.Quote(v))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// resourceField is a container's limit or request in units of the divisor, rounded up; a limit that is not set is the node's amount.
func (p *pod) resourceField(o *corev1.Pod, spec *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	if ref.ContainerName != "" {
		for i := range o.Spec.Containers {
			if o.Spec.Containers[i].Name == ref.ContainerName {
				spec = &o.Spec.Containers[i]
			}
		}
	}
	if spec == nil {
		return "", fmt.Errorf("resource %q of no container", ref.Resource)
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	list := spec.Resources.Limits
	if kind == "requests" {
		list = spec.Resources.Requests
	}
	amount, ok := list[corev1.ResourceName(name)]
	if !ok && kind == "limits" {
		n, err := p.a.nodeLister.Get(p.node.name)
		if err != nil {
			return "", err
		}
		amount = n.Status.Allocatable[corev1.ResourceName(name)]
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	units := float64(amount.MilliValue()) / float64(divisor.MilliValue())
	return strconv.FormatInt(int64(math.Ceil(units)), 10), nil
}
