package gatehouse

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// audit is the API server's record of who asked for Secrets.
type audit struct{ policy, log string }

// auditPolicy keeps one line about each request for a Secret, when it is received.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted, ResponseComplete]
rules:
- {level: Metadata, resources: [{resources: [secrets]}]}
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

// entry is one request for Secrets.
type entry struct {
	Verb, RequestURI, UserAgent string

	User      struct{ Username string }
	ObjectRef struct{ Namespace, Name string }
}

// entries are the requests for Secrets of a user.
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
