package hmac

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/http1"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

const (
	now    = 1_700_000_000
	shared = "a shared secret that is long enough"
)

type store struct{ m *secret.Material }

func (s *store) Lookup(string) *secret.Material { return s.m }

func (s *store) put(kv ...string) *store {
	s.m = &secret.Material{Data: map[string]secret.Value{}}
	for i := 0; i < len(kv); i += 2 {
		s.m.Data[kv[i]] = secret.New([]byte(kv[i+1]))
	}
	return s
}

func compiled(t testing.TB, s *store, spec v1alpha1.HMACAuth) method.Handler {
	t.Helper()
	spec.SecretRef.Name = "keys"
	h, err := Compile("signed", &spec, policy.Env{Secret: s, Refs: map[string]string{refSecret: "Secret/shop/keys"}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// parsed is a request as our own codec reads it, with its body collected.
func parsed(t testing.TB, head, body string, at int64) *exchange.Exchange {
	t.Helper()
	x := &exchange.Exchange{Start: time.Unix(at, 0), Scheme: "https", TLS: true}
	var p http1.Parser
	if body != "" {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	n, _, fault := p.ParseRequest([]byte(head+"\r\n"), &x.Request)
	if fault != nil || n == 0 {
		t.Fatalf("parsing %q: %v", head, fault)
	}
	if body != "" {
		x.Request.Body, x.Request.Buffered = []byte(body), true
	}
	return x
}

// sign is an independent signer: lines are those of the base, params what follows the list of components.
func sign(lines [][2]string, params, key string) (input, signature string) {
	var ids []string
	var text strings.Builder
	for _, l := range lines {
		ids = append(ids, l[0])
		text.WriteString(l[0] + ": " + l[1] + "\n")
	}
	input = "(" + strings.Join(ids, " ") + ")" + params
	text.WriteString(`"@signature-params": ` + input)
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(text.String()))
	return input, ":" + base64.StdEncoding.EncodeToString(m.Sum(nil)) + ":"
}

func digest(body string) string {
	sum := sha256.Sum256([]byte(body))
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

func headers(kv ...string) string {
	var b strings.Builder
	for i := 0; i < len(kv); i += 2 {
		b.WriteString(kv[i] + ": " + kv[i+1] + "\r\n")
	}
	return b.String()
}

// RFC 9421 appendix B.2.5, with the request of B.2 and the key of B.1.5.
func TestRFC9421AppendixB25(t *testing.T) {
	key, err := base64.StdEncoding.DecodeString("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==")
	if err != nil {
		t.Fatal(err)
	}
	h := compiled(t, new(store).put("test-shared-secret", string(key)), v1alpha1.HMACAuth{Components: []string{"date", "@authority"}})
	x := parsed(t, "POST /foo?param=Value&Pet=dog HTTP/1.1\r\n"+headers("Host", "example.com", "Date", "Tue, 20 Apr 2021 02:07:55 GMT",
		"Content-Type", "application/json",
		"Content-Digest", "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
		"Signature-Input", `sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`,
		"Signature", "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:"), `{"hello": "world"}`, 1618884475)
	if o := h.Authenticate(x); o.State != method.Accepted || o.Identity.Subject != "test-shared-secret" {
		t.Errorf("the example of the RFC: %+v", o)
	}
	if o := checkDigest(x); o.State != method.Absent {
		t.Errorf("the digest of the example: %+v", o)
	}
}

func TestComponents(t *testing.T) {
	const query = `var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something&flag&twice=1&twice=2&tilde=~&bad=%ff`
	const head = "GET /a/./b/../c%2fd/?" + query + " HTTP/1.1\r\nHost: WWW.Example.com:443\r\n" +
		"X-List:  one \t\r\nX-List: two\r\nX-Empty:\r\nX-Dict: a=1,   b=2;x=1;y=2, c=(a  b  c), d\r\n"
	for _, tt := range []struct {
		id, value string
		reason    string
	}{
		{`"@method"`, "GET", ""},
		{`"@scheme"`, "https", ""},
		{`"@authority"`, "www.example.com", ""},
		{`"@target-uri"`, "https://WWW.Example.com:443/a/./b/../c%2fd/?" + query, ""},
		{`"@request-target"`, "/a/./b/../c%2fd/?" + query, ""},
		{`"@path"`, "/a/./b/../c%2fd/", ""},
		{`"@query"`, "?" + query, ""},
		{`"@query-param";name="var"`, "this%20is%20a%20big%0Amultiline%20value", ""},
		{`"@query-param";name="bar"`, "with%20plus%20whitespace", ""},
		{`"@query-param";name="fa%C3%A7ade%22%3A%20"`, "something", ""},
		{`"@query-param";name="flag"`, "", ""},
		{`"@query-param";name="tilde"`, "%7E", ""},
		{`"@query-param";name="twice"`, "1", "component_missing"},
		{`"@query-param";name="bad"`, "%FF", "component_missing"},
		{`"@query-param";name="none"`, "", "component_missing"},
		{`"@query-param"`, "", "component_unsupported"},
		{`"@query-param";name=1`, "", "component_unsupported"},
		{`"x-list"`, "one, two", ""},
		{`"x-empty"`, "", ""},
		{`"x-dict"`, "a=1,   b=2;x=1;y=2, c=(a  b  c), d", ""},
		{`"x-dict";key="a"`, "1", ""},
		{`"x-dict";key="b"`, "2;x=1;y=2", ""},
		{`"x-dict";key="c"`, "(a b c)", ""},
		{`"x-dict";key="d"`, "?1", ""},
		{`"x-dict";key="e"`, "", "component_missing"},
		{`"x-list";key="e"`, "", "component_missing"},
		{`"x-empty";key="e"`, "", "component_missing"},
		{`"host"`, "WWW.Example.com:443", ""},
		{`"content-length"`, "0", "component_missing"},
		{`"x-none"`, "", "component_missing"},
		{`"X-List"`, "one, two", "component_unsupported"},
		{`"x-dict";sf`, "", "component_unsupported"},
		{`"x-dict";bs`, "", "component_unsupported"},
		{`"x-dict";tr`, "", "component_unsupported"},
		{`"@method";req`, "GET", "component_unsupported"},
		{`"@status"`, "200", "component_unsupported"},
		{`"@signature-params"`, "", "component_unsupported"},
		{`""`, "", "component_unsupported"},
		{`x-list`, "one, two", "signature_malformed"},
	} {
		h := compiled(t, new(store).put("k", shared), v1alpha1.HMACAuth{Components: []string{"@method"}})
		lines := [][2]string{{`"@method"`, "GET"}, {tt.id, tt.value}}
		if tt.id == lines[0][0] {
			lines = lines[1:]
		}
		input, sig := sign(lines, fmt.Sprintf(`;created=%d;keyid="k"`, now), shared)
		o := h.Authenticate(parsed(t, head+headers("Signature-Input", "s="+input, "Signature", "s="+sig), "", now))
		if o.Reason != tt.reason || (o.State == method.Accepted) != (tt.reason == "") {
			t.Errorf("%s: %v %q (%s), want %q", tt.id, o.State, o.Reason, o.Detail, tt.reason)
		}
	}
}

func TestTargets(t *testing.T) {
	for _, tt := range []struct{ line, uri, path, query string }{
		{"GET / HTTP/1.1", "https://a.example/", "/", "?"},
		{"GET /x? HTTP/1.1", "https://a.example/x?", "/x", "?"},
		{"OPTIONS * HTTP/1.1", "https://a.example", "*", "?"},
		{"GET http://a.example/x/../y?z=http://b HTTP/1.1", "http://a.example/x/../y?z=http://b", "/x/../y", "?z=http://b"},
		{"GET http://a.example HTTP/1.1", "http://a.example", "/", "?"},
		{"GET http://a.example?q HTTP/1.1", "http://a.example?q", "/", "?q"},
		{"GET /x://y HTTP/1.1", "https://a.example/x://y", "/x://y", "?"},
	} {
		verb, _, _ := strings.Cut(tt.line, " ")
		h := compiled(t, new(store).put("k", shared), v1alpha1.HMACAuth{})
		input, sig := sign([][2]string{{`"@method"`, verb}, {`"@target-uri"`, tt.uri}, {`"@path"`, tt.path}, {`"@query"`, tt.query}},
			fmt.Sprintf(`;created=%d;keyid="k"`, now), shared)
		o := h.Authenticate(parsed(t, tt.line+"\r\n"+headers("Host", "a.example", "Signature-Input", "s="+input, "Signature", "s="+sig), "", now))
		if o.State != method.Accepted {
			t.Errorf("%s: %+v", tt.line, o)
		}
	}
}

func TestParameters(t *testing.T) {
	for _, tt := range []struct{ params, reason string }{
		{`;created=1700000000;keyid="k"`, ""},
		{`;keyid="k";created=1700000000;alg="hmac-sha256";nonce="n";tag="app";expires=1700000001;other=?0`, ""},
		{`;created=1700000030;keyid="k"`, ""},
		{`;created=1700000031;keyid="k"`, "signature_not_yet_valid"},
		{`;created=1699999700;keyid="k"`, ""},
		{`;created=1699999699;keyid="k"`, "signature_expired"},
		{`;created=1700000000;keyid="k";expires=1700000000`, "signature_expired"},
		{`;created=1700000000;keyid="k";expires="x"`, "signature_malformed"},
		{`;keyid="k"`, "signature_malformed"},
		{`;created="1700000000";keyid="k"`, "signature_malformed"},
		{`;created=1700000000.5;keyid="k"`, "signature_malformed"},
		{`;created=1700000000`, "signature_malformed"},
		{`;created=1700000000;keyid=k`, "signature_malformed"},
		{`;created=1700000000;keyid=""`, "signature_malformed"},
		{`;created=1700000000;keyid="` + strings.Repeat("k", maxText+1) + `"`, "signature_malformed"},
		{`;created=1700000000;keyid="k";nonce=1`, "signature_malformed"},
		{`;created=1700000000;keyid="k";nonce=""`, "signature_malformed"},
		{`;created=1700000000;keyid="k";alg="rsa-v1_5-sha256"`, "signature_algorithm"},
		{`;created=1700000000;keyid="k";alg=hmac-sha256`, "signature_algorithm"},
		{`;created=1700000000;keyid="other"`, "signature_invalid"},
		{`;created=1700000000;keyid="empty"`, "signature_invalid"},
		{`;created=1700000000;keyid="short"`, "signature_invalid"},
	} {
		s := new(store).put("k", shared, "empty", "", "short", "short")
		h := compiled(t, s, v1alpha1.HMACAuth{})
		key := shared
		for id, weak := range map[string]string{"empty": "", "short": "short"} {
			if strings.Contains(tt.params, id) {
				key = weak // who knows that it is weak must not get in with it
			}
		}
		input, sig := sign([][2]string{{`"@method"`, "GET"}, {`"@target-uri"`, "https://a/"}}, tt.params, key)
		o := h.Authenticate(parsed(t, "GET / HTTP/1.1\r\n"+headers("Host", "a", "Signature-Input", "s="+input, "Signature", "s="+sig), "", now))
		if o.Reason != tt.reason || (o.State == method.Accepted) != (tt.reason == "") {
			t.Errorf("%s: %v %q (%s), want %q", tt.params, o.State, o.Reason, o.Detail, tt.reason)
		}
		want := exchange.Identity{Subject: "k", CredentialID: "Secret/shop/keys/k", Method: "signed"}
		if d := cmp.Diff(want, o.Identity); tt.reason == "" && d != "" {
			t.Errorf("identity (-want +got):\n%s", d)
		}
	}
}

func TestFields(t *testing.T) {
	input, sig := sign([][2]string{{`"@method"`, "GET"}, {`"@target-uri"`, "https://a/"}}, `;created=1700000000;keyid="k"`, shared)
	twice, sig2 := sign([][2]string{{`"@method"`, "GET"}, {`"@target-uri"`, "https://a/"}, {`"@method"`, "GET"}}, `;created=1700000000;keyid="k"`, shared)
	little, sig3 := sign([][2]string{{`"@method"`, "GET"}}, `;created=1700000000;keyid="k"`, shared)
	many := strings.Repeat(`"@method" `, maxComponents+1)
	foreign := func(n int) (out string) {
		for i := range n {
			out += fmt.Sprintf(`f%d=("@method");created=1700000000;keyid="x", `, i)
		}
		return out
	}
	empty := func(n int) (out string) {
		for i := range n {
			out += fmt.Sprintf("f%d=:%s:, ", i, base64.StdEncoding.EncodeToString(make([]byte, 32)))
		}
		return out
	}
	for _, tt := range []struct {
		name, input, sig, reason string
		state                    method.State
	}{
		{"none", "", "", "", method.Absent},
		{"a signature of another scheme", "", `keyId="x"`, "", method.Absent},
		{"good", "s=" + input, "s=" + sig, "", method.Accepted},
		{"no signature", "s=" + input, "", "signature_malformed", method.Refused},
		{"another label", "s=" + input, "t=" + sig, "signature_malformed", method.Refused},
		{"not a list", "s=1", "s=" + sig, "signature_malformed", method.Refused},
		{"not a dictionary", "(", "s=" + sig, "signature_malformed", method.Refused},
		{"not bytes", "s=" + input, `s="x"`, "signature_malformed", method.Refused},
		{"a list as signature", "s=" + input, "s=()", "signature_malformed", method.Refused},
		{"short", "s=" + input, "s=:AAAA:", "signature_malformed", method.Refused},
		{"covered twice", "s=" + twice, "s=" + sig2, "signature_malformed", method.Refused},
		{"covers too little", "s=" + little, "s=" + sig3, "signature_insufficient", method.Refused},
		{"too many components", "s=(" + many[:len(many)-1] + `);created=1700000000;keyid="k"`, "s=" + sig, "signature_malformed", method.Refused},
		{"very long", "s=" + input + ", t=\"" + strings.Repeat("x", maxField) + "\"", "s=" + sig, "signature_malformed", method.Refused},
		{"the fourth of four", foreign(3) + "s=" + input, empty(3) + "s=" + sig, "", method.Accepted},
		{"the fifth of five", foreign(4) + "s=" + input, empty(4) + "s=" + sig, "signature_insufficient", method.Refused},
	} {
		h := compiled(t, new(store).put("k", shared), v1alpha1.HMACAuth{})
		head := "GET / HTTP/1.1\r\nHost: a\r\n"
		if tt.input != "" {
			head += headers("Signature-Input", tt.input)
		}
		if tt.sig != "" {
			head += headers("Signature", tt.sig)
		}
		if o := h.Authenticate(parsed(t, head, "", now)); o.State != tt.state || o.Reason != tt.reason {
			t.Errorf("%s: %v %q (%s), want %v %q", tt.name, o.State, o.Reason, o.Detail, tt.state, tt.reason)
		}
	}
}

func TestContentDigest(t *testing.T) {
	const body = `{"hello": "world"}`
	sum := sha512.Sum512([]byte(body))
	long := "sha-512=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	for _, tt := range []struct{ name, body, digest, reason string }{
		{"sha-256", body, digest(body), ""},
		{"sha-512", body, long, ""},
		{"both", body, digest(body) + ", " + long, ""},
		{"one of two wrong", body, digest("x") + ", " + long, "digest_mismatch"},
		{"of another body", body, digest("x"), "digest_mismatch"},
		{"an unknown one beside", body, "md5=:AAAA:, " + long, ""},
		{"unknown ones only", body, "md5=:AAAA:", "digest_malformed"},
		{"not bytes", body, `sha-256="x"`, "digest_malformed"},
		{"cut off", body, "sha-256=:AAAA:", "digest_mismatch"},
		{"no dictionary", body, "(", "digest_malformed"},
		{"not covered", body, "", "signature_insufficient"},
		{"no body", "", "", ""},
		{"no body, and the digest of nothing", "", digest(""), ""},
		{"no body, and another digest", "", digest("x"), "digest_mismatch"},
	} {
		h := compiled(t, new(store).put("k", shared), v1alpha1.HMACAuth{})
		lines := [][2]string{{`"@method"`, "POST"}, {`"@target-uri"`, "https://a/"}}
		head := "POST / HTTP/1.1\r\nHost: a\r\n"
		if tt.digest != "" {
			lines = append(lines, [2]string{`"content-digest"`, tt.digest})
			head += headers("Content-Digest", tt.digest)
		}
		if tt.body != "" {
			lines = append(lines, [2]string{`"content-length"`, fmt.Sprint(len(tt.body))})
		}
		input, sig := sign(lines, `;created=1700000000;keyid="k"`, shared)
		o := h.Authenticate(parsed(t, head+headers("Signature-Input", "s="+input, "Signature", "s="+sig), tt.body, now))
		if o.Reason != tt.reason || (o.State == method.Accepted) != (tt.reason == "") {
			t.Errorf("%s: %v %q (%s), want %q", tt.name, o.State, o.Reason, o.Detail, tt.reason)
		}
	}
}

func TestCompile(t *testing.T) {
	zero, seven := gatewayv1.Duration("0s"), gatewayv1.Duration("7")
	big := int64(1 << 40)
	faults := func(s *v1alpha1.HMACAuth) (out []string) {
		_, err := Compile("signed", s, policy.Env{})
		if err == nil {
			return nil
		}
		for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
			var p *diag.Problem
			if errors.As(e, &p) {
				out = append(out, p.Path)
			}
		}
		return out
	}
	for _, tt := range []struct {
		spec v1alpha1.HMACAuth
		want []string
	}{
		{v1alpha1.HMACAuth{SecretRef: v1alpha1.LocalSecretRef{Name: "k"}}, nil},
		{v1alpha1.HMACAuth{SecretRef: v1alpha1.LocalSecretRef{Name: "k"}, Components: []string{"@path", `@query-param;name="id"`, `priority;key="u"`, "date"}}, nil},
		{v1alpha1.HMACAuth{MaxAge: &zero, MaxBodyBytes: &big, Components: []string{"@status", "Date", `date;sf`, "a b", `@query-param`, "", "@path"}},
			[]string{"secretRef.name", "maxAge", "maxBodyBytes", "components[0]", "components[1]", "components[2]", "components[3]", "components[4]", "components[5]"}},
		{v1alpha1.HMACAuth{SecretRef: v1alpha1.LocalSecretRef{Name: "k"}, MaxAge: &seven}, []string{"maxAge"}},
	} {
		if d := cmp.Diff(tt.want, faults(&tt.spec)); d != "" {
			t.Errorf("faults of %+v (-want +got):\n%s", tt.spec, d)
		}
	}
	h, err := Compile("signed", &v1alpha1.HMACAuth{SecretRef: v1alpha1.LocalSecretRef{Name: "k"}}, policy.Env{})
	if err != nil || h.Body != 1<<20 || h.Challenge != `Signature realm="signed"` {
		t.Errorf("%+v, %v", h, err)
	}
	input, sig := sign([][2]string{{`"@method"`, "GET"}}, `;created=1700000000;keyid="k"`, shared)
	o := h.Authenticate(parsed(t, "GET / HTTP/1.1\r\n"+headers("Host", "a", "Signature-Input", "s="+input, "Signature", "s="+sig), "", now))
	if o.State != method.Unavailable || o.Reason != "keys_unavailable" {
		t.Errorf("with nothing of the world: %+v", o)
	}
}
