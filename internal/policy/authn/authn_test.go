package authn

import (
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

const twoKeys = `{"methods":[{"name":"one","apiKey":{"secretRefs":[{"name":"keys"}]}},
	{"name":"two","apiKey":{"secretRefs":[{"name":"keys"}],"from":[{"header":"X-Second"},{"query":"key"}]}}]`

// keyed compiles a spec whose Secret holds one key, of application app.
func keyed(t testing.TB, text string) policy.Handler {
	t.Helper()
	secrets := &secret.Store{}
	secrets.Swap(secret.Set{"Secret/shop/keys": &secret.Material{Data: map[string]secret.Value{"app": secret.New([]byte("hunter2"))}}})
	step := Step()
	spec, err := step.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	h, err := spec.Compile(policy.Env{Secret: secrets, Refs: map[string]string{
		"methods[0].apiKey.secretRefs[0]": "Secret/shop/keys", "methods[1].apiKey.secretRefs[0]": "Secret/shop/keys"}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestCredentialsGo: no backend, and no log, sees a credential, whether it is good, bad or not asked for.
func TestCredentialsGo(t *testing.T) {
	for _, tt := range []struct {
		spec, first, second, query string
		status                     int
		reason                     string
		failed                     bool
		left                       string
	}{
		{twoKeys + "}", "hunter2", "other", "key=third&a=1", 0, "", false, "?a=1"},
		{twoKeys + "}", "", "hunter2", "", 0, "", false, ""},
		{twoKeys + "}", "no", "hunter2", "", 0, "", false, ""},
		{twoKeys + "}", "no", "", "", 401, "key_unknown", true, ""},
		{twoKeys + "}", "", "", "key=no", 401, "key_unknown", true, ""},
		{twoKeys + "}", "", "", "a=1", 401, "credentials_missing", false, "?a=1"},
		{twoKeys + `,"require":"AllOf"}`, "hunter2", "hunter2", "", 0, "", false, ""},
		{twoKeys + `,"require":"AllOf"}`, "", "", "key=hunter2", 401, "credentials_missing", false, ""},
		{twoKeys + `,"require":"AllOf"}`, "hunter2", "", "key=no", 401, "key_unknown", true, ""},
		{twoKeys + `,"mode":"Shadow"}`, "no", "", "key=no", 401, "key_unknown", true, "X-API-Key: no ?key=no"},
		{twoKeys + `,"mode":"Shadow"}`, "hunter2", "", "", 0, "", false, "X-API-Key: hunter2 "},
	} {
		h := keyed(t, tt.spec)
		x := &exchange.Exchange{}
		x.Enter(0)
		for name, v := range map[string]string{"X-API-Key": tt.first, "X-Second": tt.second} {
			if v != "" {
				x.Request.Header.Append([]byte(name), []byte(v))
			}
		}
		x.Request.Query, x.Request.HasQuery = []byte(tt.query), tt.query != ""
		v := h.Request(x)
		left := ""
		for _, f := range x.Request.Header.All() {
			left += string(f.Name) + ": " + string(f.Value) + " "
		}
		if x.Request.HasQuery {
			left += "?" + string(x.Request.Query)
		}
		if v.Status != tt.status || v.Reason != tt.reason || x.AuthFailed != tt.failed || left != tt.left || v.Shadow != (tt.status != 0 && strings.Contains(tt.spec, "Shadow")) {
			t.Errorf("%.400s %+v: %d %s, failed %v, left %q", tt.spec[len(twoKeys):], tt, v.Status, v.Reason, x.AuthFailed, left)
		}
		if strings.Contains(v.Detail, "no") && strings.Contains(v.Detail, tt.query) && tt.query != "" {
			t.Errorf("the detail shows a credential: %s", v.Detail)
		}
	}
}

func TestFaults(t *testing.T) {
	key := `"apiKey":{}`
	for spec, want := range map[string]string{
		`{}`: "methods: is empty",
		`{"require":"Any","methods":[{"name":"a",` + key + `}]}`:                                  `require: "Any" is not known`,
		`{"mode":"Off","methods":[{"name":"a",` + key + `}]}`:                                     `mode: "Off" is not a mode`,
		`{"methods":[{` + key + `}]}`:                                                             `methods[0].name: "" is empty or stands twice`,
		`{"methods":[{"name":"a",` + key + `},{"name":"a",` + key + `}]}`:                         `methods[1].name: "a" is empty or stands twice`,
		`{"methods":[{"name":"a"}]}`:                                                              `methods[0]: sets not exactly one method`,
		`{"methods":[{"name":"a",` + key + `,"anonymous":{}}]}`:                                   `methods[0]: sets not exactly one method`,
		`{"methods":[{"name":"a","anonymous":{}},{"name":"b",` + key + `}]}`:                      `methods[0]: accepts everybody`,
		`{"methods":[{"name":"a","apiKey":{"from":[{"header":"A"},{}]}}]}`:                        `methods[0].apiKey.from[1]: names not exactly one place`,
		`{"mode":"Disabled","methods":[{"name":"a","apiKey":{"from":[{}]}}]}`:                     `methods[0].apiKey.from[0]: `,
		`{"methods":[{"name":"a","jwt":{"issuers":[{}],"claimsToHeaders":[{"header":"Host"}]}}]}`: `methods[0].jwt.claimsToHeaders[0].header: "Host" cannot tell`,
	} {
		if _, err := decode(t, spec).Compile(policy.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", spec, err, want)
		}
	}
}

// TestModes: a step that is off has no hook, and one that looks on or is off meets no demand for a policy.
func TestModes(t *testing.T) {
	for mode, enforces := range map[string]bool{"": true, "Enforce": true, "Shadow": false, "Disabled": false} {
		s := decode(t, `{"mode":"`+mode+`","methods":[{"name":"a","apiKey":{}}]}`)
		h, err := s.Compile(policy.Env{})
		if err != nil {
			t.Fatal(err)
		}
		if step := Step(); step.Enforces(s) != enforces || (h.Request == nil) != (mode == "Disabled") {
			t.Errorf("%s enforces: %v, acts: %v", mode, step.Enforces(s), h.Request != nil)
		}
	}
}

// TestAlloc: a caller that the first or the second method accepts costs no allocation.
func TestAlloc(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates; make test runs this without it too")
	}
	h := keyed(t, twoKeys+"}")
	x := &exchange.Exchange{}
	value := []byte("hunter2")
	for _, name := range [][]byte{[]byte("X-API-Key"), []byte("X-Second")} {
		if n := testing.AllocsPerRun(1000, func() {
			x.Reset()
			x.Enter(0)
			x.Request.Header.Append(name, value)
			if v := h.Request(x); v.Status != 0 || x.Identity.Application != "shop/app" || x.Request.Header.Len() > 0 {
				t.Fatal(v.Reason)
			}
			h.Response(x)
		}); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}
