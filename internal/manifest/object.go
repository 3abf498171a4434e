package manifest

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

const gatewayGroup = "gateway.networking.k8s.io"

// item decodes the object at n. apiVersion and kind are taken where it names none (in a List of one kind).
func (r *reader) item(n *yaml.Node, apiVersion, kind string, index []int) *item {
	it := &item{line: max(1, n.Line), index: index}
	d := &decoder{reader: r, failed: map[string]bool{}}
	if v := scalar(n, "apiVersion"); v != "" {
		apiVersion = v
	}
	if v := scalar(n, "kind"); v != "" {
		kind = v
	}
	meta := field(n, "metadata")
	group, _, grouped := strings.Cut(apiVersion, "/")
	if !grouped {
		group = ""
	}
	d.ref = diag.Ref{Group: group, Kind: kind, Namespace: scalar(meta, "namespace"), Name: scalar(meta, "name")}
	d.secret = kind == "Secret"
	k, ok := d.resolve(n, apiVersion, kind)
	if ok {
		if k.Cluster {
			d.ref.Namespace = ""
		} else if d.ref.Namespace == "" {
			d.ref.Namespace = metav1.NamespaceDefault
		}
		if d.ref.Name != "" {
			it.key = objects.Key{Kind: k.Name, Namespace: d.ref.Namespace, Name: d.ref.Name}
		}
		d.decode(it, n, k)
	}
	if d.ref.Name == "" && d.ref.Kind != "" {
		d.ref.Name = "(without a name)"
	}
	for i := range d.faults {
		d.faults[i].Object = d.ref
	}
	it.ref, it.faults = d.ref, d.faults
	return it
}

// decode fills in it.obj and it.sum, if there is no fault in the way.
func (d *decoder) decode(it *item, n *yaml.Node, k objects.Kind) {
	t := reflect.TypeFor[corev1.Secret]()
	if k.Name != "Secret" {
		t = reflect.TypeOf(objects.New(k.Name)).Elem()
	}
	v, ok := d.value(n, t, d.reader.schemas[k.Name], "")
	fields, isMapping := v.(map[string]any)
	if !ok || !isMapping {
		return
	}
	d.metadata(n, fields, k)
	defaults(k.Name, fields)
	fields["apiVersion"], fields["kind"] = strings.TrimPrefix(k.Group+"/"+k.Version, "/"), k.Name
	if !d.broken() {
		if it.obj, it.sum, ok = d.object(n, fields, k); ok {
			d.validate(n, it.obj)
		}
	}
	if d.broken() {
		it.obj, it.sum = nil, [sha256.Size]byte{}
		d.guard(it, n, fields, k)
	}
}

func (d *decoder) broken() bool {
	return slices.ContainsFunc(d.faults, func(f diag.Fault) bool { return f.Severity == diag.Error })
}

// object makes the object of its decoded fields.
func (d *decoder) object(n *yaml.Node, fields map[string]any, k objects.Kind) (objects.Object, [sha256.Size]byte, bool) {
	b, err := json.Marshal(fields)
	if err != nil {
		d.fault(n, "", "cannot be read", "")
		return nil, [sha256.Size]byte{}, false
	}
	sum := sha256.Sum256(b)
	if k.Name == "Secret" {
		var s corev1.Secret
		if err := json.Unmarshal(b, &s); err != nil {
			d.fault(n, "", "cannot be read as a Secret", "")
			return nil, sum, false
		}
		out := &objects.Secret{ObjectMeta: s.ObjectMeta}
		out.Material = secret.Material{Type: string(s.Type), Data: map[string]secret.Value{}}
		for key, v := range s.Data {
			out.Material.Data[key] = secret.New(v)
		}
		for key, v := range s.StringData { // beats data, as in an API server
			out.Material.Data[key] = secret.New([]byte(v))
		}
		return out, sum, true
	}
	o := objects.New(k.Name)
	if err := json.Unmarshal(b, o); err != nil {
		d.fault(n, "", "cannot be read: "+err.Error(), "")
		return nil, sum, false
	}
	return o, sum, true
}

// guard hands on a policy that guards something (guards) and has faults as one without a bundle, which translate takes for invalid: what it is
// attached to answers 503 instead of standing open.
func (d *decoder) guard(it *item, n *yaml.Node, fields map[string]any, k objects.Kind) {
	if !guards(k.Name) || it.key == (objects.Key{}) {
		return
	}
	for at := range d.failed {
		if strings.HasPrefix(at, "metadata") || strings.HasPrefix(at, "spec.targetRefs") {
			return
		}
	}
	spec, _ := fields["spec"].(map[string]any)
	fields["spec"] = map[string]any{"targetRefs": spec["targetRefs"]}
	bare := &decoder{reader: d.reader, failed: map[string]bool{}}
	o, sum, ok := bare.object(n, fields, k)
	if ok && len(objects.TargetRefs(o)) > 0 {
		it.obj, it.sum, it.guard = o, sum, true
	}
}

// guards says whether a kind's policies close what they are attached to when they have faults.
func guards(kind string) bool {
	return kind == "ProtectionPolicy" || kind == "AuthPolicy" || kind == "RateLimitPolicy"
}

// metadata holds the name and namespace to the rules of the kind, and fills in the namespace.
func (d *decoder) metadata(n *yaml.Node, fields map[string]any, k objects.Kind) {
	meta, ok := fields["metadata"].(map[string]any)
	if !ok {
		if !d.failed["metadata"] {
			d.fault(n, "metadata.name", "is required", "write metadata: {name: NAME}")
		}
		return
	}
	at := deref(field(n, "metadata"))
	name, named := meta["name"].(string)
	switch {
	case d.failed["metadata.name"]:
	case !named || name == "":
		d.fault(at, "metadata.name", "is required", "write metadata: {name: NAME}")
	case k.Name == "Service" || k.Name == "Namespace":
		if !isLabel(name) {
			d.fault(field(at, "name"), "metadata.name", fmt.Sprintf("%q is not a DNS label", name), "write at most 63 lower-case letters, digits and '-'")
		}
	case !isSubdomain(name):
		d.fault(field(at, "name"), "metadata.name", fmt.Sprintf("%q is not a DNS name", name), "write lower-case letters, digits, '-' and '.'")
	}
	ns, placed := meta["namespace"].(string)
	switch {
	case k.Cluster && placed && ns != "":
		d.warn(field(at, "namespace"), "metadata.namespace", "is ignored: a "+k.Name+" has no namespace", "remove it")
		delete(meta, "namespace")
	case k.Cluster || d.failed["metadata.namespace"]:
	case ns == "":
		meta["namespace"] = metav1.NamespaceDefault
	case !isLabel(ns):
		d.fault(field(at, "namespace"), "metadata.namespace", fmt.Sprintf("%q is not a DNS label", ns), "write at most 63 lower-case letters, digits and '-'")
	}
}

func (d *decoder) warn(n *yaml.Node, at, message, hint string) {
	before := d.failed[at]
	d.fault(n, at, message, hint)
	d.failed[at] = before
	d.faults[len(d.faults)-1].Severity = diag.Warning
}

// resolve finds the kind of an object. A kind that is near to one we read is a mistake; any other kind is told as skipped,
// since people hand us the folder with all their manifests.
func (d *decoder) resolve(n *yaml.Node, apiVersion, kind string) (objects.Kind, bool) {
	if kind == "" {
		d.fault(n, "kind", "is required", "write apiVersion and kind, as in networking.k8s.io/v1 and Ingress")
		return objects.Kind{}, false
	}
	at := deref(field(n, "kind"))
	k, known := d.reader.kinds[kind]
	want := strings.TrimPrefix(k.Group+"/"+k.Version, "/")
	group := d.ref.Group
	switch {
	case known && apiVersion == "":
		d.fault(n, "apiVersion", "is required", "write apiVersion: "+want)
	case known && (apiVersion == want || apiVersion == gatewayGroup+"/v1beta1" && group == k.Group):
		return k, true
	case known && (group == k.Group || near(apiVersion, want) || group == "" && strings.HasPrefix(apiVersion, "v") || kind == "Ingress" && group == "extensions"):
		hint := "write " + want
		if kind == "Ingress" && (group == "extensions" || apiVersion == "networking.k8s.io/v1beta1") {
			hint += ", whose backends are service: {name: NAME, port: {number: PORT}}"
		}
		d.fault(deref(field(n, "apiVersion")), "apiVersion", fmt.Sprintf("no %s in %q", kind, apiVersion), hint)
	case group == gatewayGroup || group == v1alpha1.Group:
		d.fault(at, "kind", "unknown kind in "+apiVersion+", this object is not served", d.kindHint(kind, group))
	default:
		for _, k := range d.reader.kinds {
			if k.Group == group && near(kind, k.Name) {
				d.fault(at, "kind", fmt.Sprintf("unknown kind %q in %s", kind, apiVersion), fmt.Sprintf("did you mean %s?", k.Name))
				return objects.Kind{}, false
			}
		}
		d.warn(at, "", "kind not used by Gatehouse, skipped", "")
	}
	return objects.Kind{}, false
}

func near(a, b string) bool {
	return diag.Nearest(a, []string{b}) != ""
}

func (d *decoder) kindHint(kind, group string) string {
	var names []string
	for _, k := range d.reader.kinds {
		if k.Group == group {
			names = append(names, k.Name)
		}
	}
	slices.Sort(names)
	if n := diag.Nearest(kind, names); n != "" {
		return fmt.Sprintf("did you mean %s?", n)
	}
	return "this version of Gatehouse knows " + strings.Join(names, ", ")
}

func isSubdomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isWord(label) {
			return false
		}
	}
	return true
}

func isLabel(s string) bool { return len(s) <= 63 && isWord(s) }

func isWord(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
