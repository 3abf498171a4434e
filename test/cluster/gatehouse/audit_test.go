package gatehouse_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// audit is the API server's record of who asked for Secrets, and of what pods wrote.
type audit struct{ policy, log string }

// auditPolicy keeps one line about each such request, when it is received.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted, ResponseComplete]
rules:
- {level: Metadata, resources: [{resources: [secrets]}]}
- {level: Metadata, verbs: [create, update, patch, delete, deletecollection], userGroups: ["system:serviceaccounts"]}
- {level: None}
`

func newAudit(t *testing.T) *audit {
	t.Helper()
	dir := t.TempDir()
	a := &audit{filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")}
	if err := os.WriteFile(a.policy, []byte(auditPolicy), 0o644); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *audit) flags() []string {
	return []string{"--audit-policy-file=" + a.policy, "--audit-log-path=" + a.log, "--audit-log-mode=blocking"}
}

// entry is one request.
type entry struct {
	Verb, RequestURI, UserAgent string

	User      struct{ Username string }
	ObjectRef struct{ Resource, Namespace, Name string }
}

// account is the name of the user that an installation's pods are.
func account(namespace, release string) string {
	return "system:serviceaccount:" + namespace + ":" + release
}

// entries are the recorded requests of a user.
func (a *audit) entries(t *testing.T, user string) (out []entry) {
	t.Helper()
	f, err := os.Open(a.log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("audit log: %v: %.300s", err, lines.Bytes())
		}
		if e.User.Username == user {
			out = append(out, e)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// wrote are the objects that a user wrote or meant to write, as "resource namespace/name" or "resource name". Events, which are made for
// whatever they are about, are not among them.
func (a *audit) wrote(t *testing.T, user string) (out []string) {
	t.Helper()
	for _, e := range a.entries(t, user) {
		o := e.ObjectRef
		if e.Verb == "get" || e.Verb == "list" || e.Verb == "watch" || o.Resource == "events" {
			continue
		}
		name := o.Name
		if o.Namespace != "" {
			name = o.Namespace + "/" + name
		}
		out = append(out, o.Resource+" "+name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
