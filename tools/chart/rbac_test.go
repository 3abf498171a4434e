package chart_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// rights lists what the roles allow, a line for each resource of each role.
func rights(objs []runtime.Object) string {
	var lines []string
	add := func(role string, rules []rbacv1.PolicyRule) {
		lines = append(lines, role)
		for _, r := range rules {
			for _, g := range r.APIGroups {
				for _, res := range r.Resources {
					if g != "" {
						res += "." + g
					}
					line := fmt.Sprintf("  %-60s %s", res, strings.Join(r.Verbs, " "))
					if len(r.ResourceNames) > 0 {
						line += "   only " + strings.Join(r.ResourceNames, " ")
					}
					lines = append(lines, line)
				}
			}
		}
	}
	for _, o := range objs {
		switch o := o.(type) {
		case *rbacv1.ClusterRole:
			add("ClusterRole "+o.Name, o.Rules)
		case *rbacv1.Role:
			add("Role "+o.Namespace+"/"+o.Name, o.Rules)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestRights(t *testing.T) {
	for name, args := range map[string][]string{
		"all-namespaces":   nil,
		"watch-namespaces": {"-f", chart + "/ci/watch-namespaces-values.yaml"},
	} {
		objs := template(t, "edge", "main", args...)
		golden(t, "testdata/rbac-"+name+".txt", rights(objs))
		for _, o := range objs {
			switch o := o.(type) {
			case *rbacv1.ClusterRole:
				limits(t, o.Name, false, o.Rules)
				if o.AggregationRule != nil {
					t.Errorf("ClusterRole %s takes in others", o.Name)
				}
			case *rbacv1.Role:
				limits(t, o.Name, o.Namespace == "edge" && !strings.Contains(o.Name, ":"), o.Rules)
			}
		}
	}
}

// limits holds rules to what no installation may exceed, whatever the golden files say.
func limits(t *testing.T, role string, own bool, rules []rbacv1.PolicyRule) {
	t.Helper()
	read := []string{"get", "list", "watch"}
	for _, r := range rules {
		if slices.Contains(slices.Concat(r.APIGroups, r.Resources, r.Verbs, r.NonResourceURLs), "*") {
			t.Errorf("%s: %v has *", role, r)
		}
		for _, res := range r.Resources {
			for _, v := range r.Verbs {
				switch {
				case slices.Contains(read, v):
				case res == "events" && (v == "create" || v == "patch"):
				case strings.HasSuffix(res, "/status") && (v == "patch" || v == "update"):
				case own && res == "leases" && (v == "create" || v == "update"):
				case own && res == "services" && slices.Contains([]string{"create", "update", "patch", "delete"}, v):
				default:
					t.Errorf("%s may %s %s", role, v, res)
				}
			}
		}
	}
}
