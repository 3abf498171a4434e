package chart_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	begin = "<!-- values: made from values.yaml by go test . -update in tools/chart -->\n"
	end   = "<!-- end of values -->\n"
)

// value is one setting: its path, the comment above it and its default.
type value struct{ path, comment, preset string }

// values reads values.yaml line by line: a comment belongs to the key below it, and a key with a comment is a setting, whatever is
// below it. Keys without one are only the way to others.
func values(t *testing.T) []value {
	t.Helper()
	data, err := os.ReadFile(chart + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var whole map[string]any
	if err := yaml.UnmarshalStrict(data, &whole); err != nil {
		t.Fatal(err)
	}
	var out []value
	var path []string
	var comment []string
	depth := -1 // of the setting whose inside is skipped
	for line := range strings.SplitSeq(string(data), "\n") {
		text := strings.TrimSpace(line)
		indent := (len(line) - len(strings.TrimLeft(line, " "))) / 2
		switch {
		case text == "":
			comment = nil
			continue
		case strings.HasPrefix(text, "#"):
			comment = append(comment, strings.TrimSpace(strings.TrimPrefix(text, "#")))
			continue
		case depth >= 0 && indent > depth:
			continue
		}
		depth = -1
		name, _, _ := strings.Cut(text, ":")
		path = append(path[:indent], name)
		if len(comment) > 0 {
			preset, err := json.Marshal(at(whole, path))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, value{strings.Join(path, "."), strings.Join(comment, " "), string(preset)})
			depth = indent
		} else if _, group := at(whole, path).(map[string]any); !group {
			t.Errorf("values.yaml: %s has no comment", strings.Join(path, "."))
		}
		comment = nil
	}
	return out
}

// at is what stands at a path.
func at(v any, path []string) any {
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}

// TestPage holds the table of values in the chart's page to values.yaml.
func TestPage(t *testing.T) {
	var b strings.Builder
	b.WriteString(begin + "\n| value | default | what it does |\n|---|---|---|\n")
	for _, v := range values(t) {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", v.path, strings.ReplaceAll(v.preset, "|", `\|`), strings.ReplaceAll(v.comment, "|", `\|`))
	}
	b.WriteString("\n" + end)
	file := chart + "/README.md"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks %q or %q", file, begin, end)
	}
	if want := head + b.String() + tail; want != string(page) {
		if !*update {
			t.Fatalf("the table of values in %s is stale; to write it: go test . -update", file)
		}
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSchema: the schema knows exactly the values that there are, and a value that is not there is refused.
func TestSchema(t *testing.T) {
	data, err := os.ReadFile(chart + "/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	defs, _ := schema["$defs"].(map[string]any)
	var known []string
	var walk func(s map[string]any, path string)
	walk = func(s map[string]any, path string) {
		if ref, ok := s["$ref"].(string); ok {
			s, _ = defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
		}
		props, ok := s["properties"].(map[string]any)
		if !ok {
			known = append(known, path)
			return
		}
		if more, ok := s["additionalProperties"].(bool); !ok || more {
			t.Errorf("values.schema.json: %s takes values that are not there", path)
		}
		for name, p := range props {
			walk(p.(map[string]any), strings.TrimPrefix(path+"."+name, "."))
		}
	}
	walk(schema, "")
	known = slices.DeleteFunc(known, func(p string) bool { return p == "global" })
	var have []string
	for _, v := range values(t) {
		have = append(have, v.path)
	}
	slices.Sort(known)
	slices.Sort(have)
	if !slices.Equal(known, have) {
		for _, p := range have {
			if !slices.Contains(known, p) {
				t.Errorf("values.schema.json does not know %s", p)
			}
		}
		for _, p := range known {
			if !slices.Contains(have, p) {
				t.Errorf("values.schema.json knows %s, which values.yaml does not have", p)
			}
		}
	}
}

// TestRefused: mistakes that people make are told, in words that help.
func TestRefused(t *testing.T) {
	for set, want := range map[string]string{
		"replicaCount=3":                                "'replicaCount' not allowed",
		"kind=StatefulSet":                              "'Deployment', 'DaemonSet'",
		"exposure=Node":                                 "'Service', 'Host'",
		"image.tag=1":                                   "got number, want string",
		"image.repository=a:b":                          "/image/repository",
		"watchNamespaces=shop":                          "got string, want array",
		"watchNamespaces={Shop}":                        "/watchNamespaces/0",
		"controllers.gateway=gatehouse":                 "/controllers/gateway",
		"gatewayClass.parametersRef.name=a":             "/gatewayClass/parametersRef",
		"resources.limits.memory=1Q":                    `resources.limits.memory is "1Q": write a number with`,
		"healthPort=0":                                  "/healthPort",
		"autoscaling.enabled=true,kind=DaemonSet":       "autoscaling goes with kind Deployment",
		"metrics.serviceMonitor.enable=true":            "'enable' not allowed",
		"stores.data.persistentVolumeClaim.claimName=a": "stores.data is a claim, for one pod: set replicas=1",
		"stores.data.claimName=a":                       "/stores/data",
		"stores.redisSecretRef.key=a":                   "/stores/redisSecretRef",
		"stores.geoip.file=../a":                        "/stores/geoip/file",
		"stores.data.emptyDir.medium=,stores.databaseSecretRef.name=a": "stores.data and stores.databaseSecretRef are both set",
		"drainGrace=1m5s,terminationGracePeriodSeconds=60":             "drainGrace and 40 s more need 105",
		"watchNamespaces={a},rbac.create=true,crds.check=no":           "/crds/check",
	} {
		out, errs, err := helm(t, nil, "template", "main", chart, "-n", "edge", "--set", set)
		if err == nil || !strings.Contains(errs, want) {
			t.Errorf("--set %s: %v, want %q in:\n%s%.200s", set, err, want, errs, out)
		}
	}
}
