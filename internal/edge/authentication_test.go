package edge_test

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

const shared = "a shared secret that is long enough"

// guarded is an edge whose one route asks for a password or a signature. Its backend answers with what it got.
func guarded(t *testing.T) *edgetest.Rig {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("sesame"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %q %d", r.RequestURI, r.Header.Get("Authorization"), len(body))
	}))
	cfg := edgetest.Simple()
	cfg.Hosts[0].Routes[0].Steps = []*ir.Step{{Name: authn.Name, Phase: policy.Authenticate.String(),
		Spec: ir.RawJSON(`{"methods":[{"name":"staff","basic":{"secretRef":{"name":"users"}}},{"name":"signed","hmac":{"secretRef":{"name":"keys"},"maxBodyBytes":100000}}]}`),
		Refs: map[string]string{"methods[0].basic.secretRef": "Secret/test/users", "methods[1].hmac.secretRef": "Secret/test/keys"}}}
	return edgetest.New(t, edgetest.Options{Config: cfg, Steps: append(edgetest.Steps(), authn.Step()), Clusters: map[string][]string{"c": {b}},
		Secrets: secret.Set{"Secret/test/users": {Data: map[string]secret.Value{"auth": secret.New([]byte("ann:" + string(hash)))}},
			"Secret/test/keys": {Data: map[string]secret.Value{"k": secret.New([]byte(shared))}}}})
}

func TestPasswordThroughTheEdge(t *testing.T) {
	r := guarded(t)
	c := r.Dial()
	for _, tt := range []struct {
		password string
		status   int
		body     string
	}{{"sesame", 200, `/ "" 0`}, {"sesame", 200, `/ "" 0`}, {"wrong", 401, ""}} {
		c.Send("GET / HTTP/1.1\nHost: a\nAuthorization: Basic " + base64.StdEncoding.EncodeToString([]byte("ann:"+tt.password)) + "\n\n")
		res, body := c.Read("GET")
		if res.StatusCode != tt.status || tt.body != "" && body != tt.body {
			t.Errorf("%s: %d %s, want %d %s", tt.password, res.StatusCode, body, tt.status, tt.body)
		}
		const want = `Basic realm="staff", charset="UTF-8", Signature realm="signed"`
		if got := res.Header.Get("WWW-Authenticate"); tt.status == 401 && got != want {
			t.Errorf("challenge = %s, want %s", got, want)
		}
	}
}

// TestSignatureThroughTheEdge: what was signed is what stood on the wire, also when the body is long enough to be read in several parts.
func TestSignatureThroughTheEdge(t *testing.T) {
	r := guarded(t)
	big := make([]byte, 90_000)
	if _, err := rand.Read(big); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name         string
		signed, sent string // targets
		body         []byte
		chunked      bool
		status       int
	}{
		{"no body", "/x?y=1", "/x?y=1", nil, false, 200},
		{"dot segments", "/a/../x%2e", "/a/../x%2e", nil, false, 200},
		{"dot segments that nobody signed", "/x", "/a/../x", nil, false, 401},
		{"another spelling", "/x", "/%78", nil, false, 401},
		{"short body", "/x", "/x", []byte("hello"), false, 200},
		{"long body", "/a/./x?q", "/a/./x?q", big, false, 200},
		{"long body in chunks", "/a/./x?q", "/a/./x?q", big, true, 200},
		{"too long", "/x", "/x", make([]byte, 100_001), false, 413},
	} {
		digest := sha256.Sum256(tt.body)
		cd := "sha-256=:" + base64.StdEncoding.EncodeToString(digest[:]) + ":"
		params := fmt.Sprintf(`("@method" "@target-uri" "content-digest");created=%d;keyid="k"`, time.Now().Unix())
		m := hmac.New(sha256.New, []byte(shared))
		fmt.Fprintf(m, "\"@method\": POST\n\"@target-uri\": http://a.example%s\n\"content-digest\": %s\n\"@signature-params\": %s", tt.signed, cd, params)
		head := fmt.Sprintf("POST %s HTTP/1.1\nHost: a.example\nContent-Digest: %s\nSignature-Input: s=%s\nSignature: s=:%s:\n", tt.sent, cd, params,
			base64.StdEncoding.EncodeToString(m.Sum(nil)))
		c := r.Dial()
		if tt.chunked {
			c.Send(head + "Transfer-Encoding: chunked\n\n")
			for part := range slices.Chunk(tt.body, 7000) {
				c.Send(fmt.Sprintf("%x\n", len(part)))
				_, _ = c.Write(part)
				c.Send("\n")
			}
			c.Send("0\n\n")
		} else {
			c.Send(head + fmt.Sprintf("Content-Length: %d\n\n", len(tt.body)))
			_, _ = c.Write(tt.body) // one that is too long may be cut off
		}
		if res, body := c.Read("POST"); res.StatusCode != tt.status {
			t.Errorf("%s: %d %s, want %d", tt.name, res.StatusCode, body, tt.status)
		}
	}
}
