package edgetest_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// TestPolicyBasic: passwords by bcrypt and argon2id, and nothing else.
func TestPolicyBasic(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("pw-of-ann"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	b64, salt := base64.RawStdEncoding.EncodeToString, []byte("0123456789abcdef")
	argon := fmt.Sprintf("$argon2id$v=19$m=64,t=1,p=1$%s$%s", b64(salt), b64(argon2.IDKey([]byte("pw-of-bob"), salt, 1, 64, 1, 32)))
	overEach(t, func(w *stage) {
		w.apply(secretOf("users", "auth", fmt.Sprintf("ann:%s\nbob:%s\nold:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n", hash, argon)) +
			authn("{name: staff, basic: {secretRef: {name: users}, realm: 'the shop'}}"))
		for user, password := range map[string]string{"ann": "pw-of-ann", "bob": "pw-of-bob"} {
			s := w.passed(w.ask("/by-"+user, basic(user, password)))
			if s.Header.Get("Authorization") != "" {
				w.Errorf("the backend sees %s", s.Header.Get("Authorization"))
			}
			if l := w.logged("/by-" + user); !strings.Contains(l, `"subject":"`+user+`"`) || strings.Contains(l, password) {
				w.Errorf("the log says %s", l)
			}
		}
		for _, x := range []struct{ user, password, reason string }{
			{"ann", "pw-of-bob", "credentials_invalid"}, {"bob", "", "credentials_invalid"}, {"carl", "pw-of-ann", "credentials_invalid"},
			{"old", "password", "credentials_invalid"}, {"", "", "credentials_invalid"}, {"ann", strings.Repeat("p", 73), "credentials_invalid"},
		} {
			a := w.ask("/", basic(x.user, x.password))
			w.refused(a, 401, x.reason)
			if got := a.header.Get("Www-Authenticate"); got != `Basic realm="the shop", charset="UTF-8"` {
				w.Errorf("WWW-Authenticate %s", got)
			}
		}
		w.refused(w.ask("/", "Authorization: Basic %%%"), 401, "credential_malformed")
		w.refused(w.ask("/", basic("ann", "pw-of-ann"), basic("bob", "pw-of-bob")), 401, "credential_repeated")
		w.refused(w.ask("/"), 401, "credentials_missing")
	})
}

const sharedSecret = "a shared secret that is long enough"

// signed are the fields of a request that is signed (RFC 9421), written here without the help of the edge's own code.
func signed(key, method, uri, body string, params string) []string {
	base := [][2]string{{`"@method"`, method}, {`"@target-uri"`, uri}}
	var out []string
	if body != "" {
		sum := sha256.Sum256([]byte(body))
		digest := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
		base = append(base, [2]string{`"content-digest"`, digest})
		out = append(out, "Content-Digest: "+digest)
	}
	var ids []string
	var text strings.Builder
	for _, l := range base {
		ids = append(ids, l[0])
		fmt.Fprintf(&text, "%s: %s\n", l[0], l[1])
	}
	input := "(" + strings.Join(ids, " ") + ")" + params
	text.WriteString(`"@signature-params": ` + input)
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(text.String()))
	return append(out, "Signature-Input: sig="+input, "Signature: sig=:"+base64.StdEncoding.EncodeToString(m.Sum(nil))+":")
}

// TestPolicyHMAC: a signature holds for one request, its body included, and not for ever.
func TestPolicyHMAC(t *testing.T) {
	overEach(t, func(w *stage) {
		w.apply(secretOf("shared", "partner", sharedSecret) + authn("{name: signed, hmac: {secretRef: {name: shared}, maxAge: 1m}}"))
		scheme := "http"
		if w.secure {
			scheme = "https"
		}
		at := func(path string) string { return scheme + "://shop.example" + path }
		params := func(age time.Duration, more string) string {
			return fmt.Sprintf(`;created=%d;keyid="partner"%s`, time.Now().Add(-age).Unix(), more)
		}
		w.passed(w.ask("/signed?a=b", signed(sharedSecret, "GET", at("/signed?a=b"), "", params(0, ""))...))
		if l := w.logged("/signed"); !strings.Contains(l, `"subject":"partner"`) {
			w.Errorf("the log says %s", l)
		}
		if !w.upgrade { // a request to change the protocol has no body
			fields := signed(sharedSecret, "POST", at("/"), "the body", params(0, ""))
			if s := w.passed(w.do(call{method: "POST", fields: fields, body: "the body"})); s.Body != "the body" {
				w.Errorf("the backend got %q", s.Body)
			}
			w.refused(w.do(call{method: "POST", fields: fields, body: "the b0dy"}), 401, "digest_mismatch")
			w.refused(w.do(call{method: "POST", fields: fields[1:], body: "the body"}), 401, "component_missing")
			w.refused(w.do(call{method: "POST", fields: signed(sharedSecret, "POST", at("/"), "", params(0, "")), body: "x"}), 401, "signature_insufficient")
		}
		once := signed(sharedSecret, "GET", at("/"), "", params(0, `;nonce="n-`+w.name[:4]+`"`))
		w.passed(w.ask("/", once...))
		for _, x := range []struct {
			what, reason string
			fields       []string
		}{
			{"nothing", "credentials_missing", nil},
			{"again", "signature_replayed", once},
			{"another secret", "signature_invalid", signed("another secret of good length", "GET", at("/"), "", params(0, ""))},
			{"another method", "signature_invalid", signed(sharedSecret, "PUT", at("/"), "", params(0, ""))},
			{"another query", "signature_invalid", signed(sharedSecret, "GET", at("/?a=b"), "", params(0, ""))},
			{"old", "signature_expired", signed(sharedSecret, "GET", at("/"), "", params(2*time.Minute, ""))},
			{"another key", "signature_invalid", signed(sharedSecret, "GET", at("/"), "", fmt.Sprintf(`;created=%d;keyid="nobody"`, time.Now().Unix()))},
			{"junk", "signature_malformed", []string{"Signature-Input: sig=(", "Signature: sig=:AA==:"}},
		} {
			if a := w.ask("/", x.fields...); a.status != 401 || a.reason != x.reason || a.seen != nil {
				w.Errorf("%s: got %d %s, want 401 %s", x.what, a.status, a.reason, x.reason)
			}
		}
	})
}

// clientPair is a certificate signed by itself, and a ConfigMap that has it as an authority.
func clientPair(t testing.TB, name string, names ...string) (tls.Certificate, string) {
	p := edgetest.Certificate(t, names...)
	c, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return c, fmt.Sprintf("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: d}\ndata:\n  ca.crt: |\n    %s\n---\n", name,
		strings.ReplaceAll(strings.TrimSpace(string(p.Cert)), "\n", "\n    "))
}

// TestPolicyMTLS: a certificate of these authorities, with one of these names; the listener beside is not asked for one.
func TestPolicyMTLS(t *testing.T) {
	overEach(t, func(w *stage) {
		web, webCA := clientPair(w, "web", "web.example", "spiffe://cluster.example/ns/shop/sa/web")
		dns, dnsCA := clientPair(w, "dns", "partner.example")
		job, jobCA := clientPair(w, "job", "job.example", "spiffe://cluster.example/ns/batch/sa/job")
		evil, _ := clientPair(w, "evil", "partner.example", "spiffe://cluster.example/ns/shop/sa/web")
		w.apply(webCA + dnsCA + jobCA + strings.Replace(routeTo("beside", "/", ""), "[{name: g, sectionName: web}, {name: g, sectionName: tls}]", "[{name: g, sectionName: other}]", 1) +
			authn(`{name: certs, mtls: {caCertificateRefs: [{name: web}, {name: dns}, {name: job}], certificateHeader: X-Client-Cert,
				subjectAltNames: [{dns: partner.example}, {uri: 'spiffe://cluster.example/ns/shop/*'}]}}`))
		if !w.secure {
			w.refused(w.ask("/"), 401, "credentials_missing") // in clear text there is no certificate
		}
		via := func(c *tls.Certificate, fields ...string) *answer {
			return w.do(call{listener: "tls", cert: c, fields: fields})
		}
		s := w.passed(via(&web, "X-Client-Cert: mine", "x_client_cert: mine"))
		told, err := url.QueryUnescape(strings.ReplaceAll(s.Header.Get("X-Client-Cert"), "+", "%2B"))
		if err != nil || !strings.HasPrefix(told, "-----BEGIN CERTIFICATE-----") || len(s.Header["X-Client-Cert"]) != 1 || s.Header["X_client_cert"] != nil {
			w.Errorf("the backend is told %q", s.Header["X-Client-Cert"])
		}
		w.passed(via(&dns))
		w.refused(via(nil), 401, "credentials_missing")
		w.refused(via(&job), 401, "certificate_name_not_allowed")
		w.refused(via(&evil), 401, "certificate_untrusted")
		w.passed(w.do(call{listener: "tls", target: "/open"})) // asked for one, and may decline
		asked := false
		c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.ports["other"]), &tls.Config{RootCAs: w.pair.Pool, ServerName: "shop.example",
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { asked = true; return &web, nil }})
		if err != nil {
			w.Fatal(err)
		}
		_ = c.Close()
		if asked {
			w.Error("a listener without mtls asks clients for a certificate")
		}
		w.passed(w.do(call{listener: "other"}))
		// Another authority takes the place of one: its certificates end, those that were remembered too.
		_, again := clientPair(w, "web", "web.example", "spiffe://cluster.example/ns/shop/sa/web")
		w.apply(again)
		w.refused(via(&web), 401, "certificate_untrusted")
	})
}

// TestPolicyMethodsTogether: which of several methods decides, what becomes of several identities, and what a client is told to try.
func TestPolicyMethodsTogether(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	overEach(t, func(w *stage) {
		idp := newKeyPair(w, "one")
		jwt := fmt.Sprintf("{name: jwt, jwt: {issuers: [{issuer: '%s', jwks: {inline: '%s'}}]}}", issuer, jwks(w, idp))
		const keys, users = "{name: keys, apiKey: {secretRefs: [{name: keys}]}}", "{name: users, basic: {secretRef: {name: users}, strip: false}}"
		w.apply(secretOf("keys", "app", keyOfShop) + secretOf("users", "auth", "ann:"+string(hash)) + authn(strings.Join([]string{jwt, keys, users}, ", ")))
		key, good, bad := "X-API-Key: "+keyOfShop, bearer(idp.token(w)), bearer(idp.token(w, "exp", 1))
		for i, x := range []struct {
			fields []string
			by     string
		}{{[]string{key, good}, "jwt"}, {[]string{key}, "keys"}, {[]string{key, basic("ann", "pw")}, "keys"}, {[]string{basic("ann", "pw")}, "users"},
			{[]string{bad, key}, "keys"}, {[]string{"X-API-Key: no", basic("ann", "pw")}, "users"}} {
			path := fmt.Sprintf("/any-%d", i)
			s := w.passed(w.ask(path, x.fields...))
			if l := w.logged(path); !strings.Contains(l, `"auth":"`+x.by+`"`) {
				w.Errorf("%d: the log says %s, want %s", i, l, x.by)
			}
			if s.Header.Get("X-Api-Key") != "" {
				w.Errorf("%d: the backend sees a key", i)
			}
		}
		const all = `Bearer realm="jwt", ApiKey realm="keys", Basic realm="users", charset="UTF-8"`
		a := w.ask("/")
		w.refused(a, 401, "credentials_missing")
		if got := a.header["Www-Authenticate"]; len(got) != 1 || got[0] != all {
			w.Errorf("WWW-Authenticate %q, want %q", got, all)
		}
		a = w.ask("/", "X-API-Key: no", bad)
		w.refused(a, 401, "token_expired")
		got := a.header["Www-Authenticate"]
		if len(got) != 1 || !strings.HasPrefix(got[0], `Bearer realm="jwt", error="invalid_token"`) || !strings.HasSuffix(got[0], `, ApiKey realm="keys", Basic realm="users", charset="UTF-8"`) {
			w.Errorf("WWW-Authenticate %q", got)
		}
		// Anonymous behind them lets those in who show nothing, and whose credential is wrong: the policy says so.
		w.apply(authn(keys + ", {name: anybody, anonymous: {}}"))
		w.passed(w.ask("/anonymous"))
		if l := w.logged("/anonymous"); !strings.Contains(l, `"auth":"anybody"`) || strings.Contains(l, "subject") {
			w.Errorf("the log says %s", l)
		}
		w.passed(w.ask("/known", key))
		if l := w.logged("/known"); !strings.Contains(l, `"auth":"keys"`) {
			w.Errorf("the log says %s", l)
		}
		// AllOf: each has to accept, and the first's identity is filled from the others'.
		w.apply(pol("AuthPolicy", "p", toAPI, "{authentication: {require: AllOf, methods: ["+jwt+", "+keys+"]}}"))
		w.passed(w.ask("/all", key, good))
		if l := w.logged("/all"); !strings.Contains(l, `"subject":"u1"`) || !strings.Contains(l, `"application":"d/app"`) || !strings.Contains(l, `"auth":"jwt"`) {
			w.Errorf("the log says %s", l)
		}
		w.refused(w.ask("/", key), 401, "credentials_missing")
		w.refused(w.ask("/", good), 401, "credentials_missing")
		w.refused(w.ask("/", key, bad), 401, "token_expired")
		w.refused(w.ask("/", "X-API-Key: no", good), 401, "key_unknown")
	})
}
