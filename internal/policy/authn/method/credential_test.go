package method

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// sent is a request with a query ("" none, "?" an empty one) and fields as "Name: value".
func sent(query string, fields ...string) *exchange.Exchange {
	x := new(exchange.Exchange)
	if query != "" {
		x.Request.HasQuery, x.Request.Query = true, []byte(strings.TrimPrefix(query, "?"))
	}
	for _, f := range fields {
		n, v, _ := strings.Cut(f, ": ")
		x.Request.Header.Append([]byte(n), []byte(v))
	}
	return x
}

func shown(x *exchange.Exchange) string {
	var out []string
	if x.Request.HasQuery {
		out = append(out, "?"+string(x.Request.Query))
	}
	for _, f := range x.Request.Header.All() {
		out = append(out, string(f.Name)+": "+string(f.Value))
	}
	return strings.Join(out, " | ")
}

func source(t testing.TB, from ...v1alpha1.CredentialSource) *Source {
	t.Helper()
	s, err := NewSource(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const repeated = "repeated"

func TestSource(t *testing.T) {
	header, bearer := v1alpha1.CredentialSource{Header: "X-Key"}, Bearer()[0]
	query, cookie := v1alpha1.CredentialSource{Query: "api_key"}, v1alpha1.CredentialSource{Cookie: "key"}
	for _, tt := range []struct {
		name string
		from []v1alpha1.CredentialSource
		x    *exchange.Exchange
		want string // what Find finds, "" for nothing
		left string // by Strip
	}{
		{"header", []v1alpha1.CredentialSource{header}, sent("", "x-KEY: k", "A: 1"), "k", "A: 1"},
		{"header, empty", []v1alpha1.CredentialSource{header}, sent("", "X-Key: ", "A: 1"), "", "X-Key:  | A: 1"},
		{"header, twice", []v1alpha1.CredentialSource{header}, sent("", "X-Key: k", "A: 1", "x-key: k"), repeated, "A: 1"},
		{"header, one of two empty", []v1alpha1.CredentialSource{header}, sent("", "X-Key: ", "X-Key: k"), "k", "X-Key: "},
		{"scheme", []v1alpha1.CredentialSource{bearer}, sent("", "Authorization: bEARER t"), "t", ""},
		{"scheme, spaces", []v1alpha1.CredentialSource{bearer}, sent("", "Authorization: Bearer   t"), "t", ""},
		{"scheme, another", []v1alpha1.CredentialSource{bearer}, sent("", "Authorization: Basic t"), "", "Authorization: Basic t"},
		{"scheme, only begins so", []v1alpha1.CredentialSource{bearer}, sent("", "Authorization: Bearers t"), "", "Authorization: Bearers t"},
		{"scheme, nothing behind it", []v1alpha1.CredentialSource{bearer}, sent("", "Authorization: Bearer "), "", "Authorization: Bearer "},
		{"scheme, two", []v1alpha1.CredentialSource{bearer}, sent("", "Authorization: Basic b", "Authorization: Bearer t"), "t", "Authorization: Basic b"},
		{"query", []v1alpha1.CredentialSource{query}, sent("a=1&api_key=k&b=2"), "k", "?a=1&b=2"},
		{"query, alone", []v1alpha1.CredentialSource{query}, sent("api_key=k"), "k", ""},
		{"query, twice", []v1alpha1.CredentialSource{query}, sent("api_key=k&a=1&api_key=l"), repeated, "?a=1"},
		{"query, encoded name", []v1alpha1.CredentialSource{query}, sent("a=1&%61pi%5fke%79=k"), "k", "?a=1"},
		{"query, twice, one encoded", []v1alpha1.CredentialSource{query}, sent("api_key=k&api%5Fkey=l"), repeated, ""},
		{"query, encoded value", []v1alpha1.CredentialSource{query}, sent("api_key=a%2Fb%3d+%zz%"), "a/b=+%zz%", ""},
		{"query, no value", []v1alpha1.CredentialSource{query}, sent("api_key&api_key=&a"), "", "?a"},
		{"query, other case", []v1alpha1.CredentialSource{query}, sent("API_KEY=k"), "", "?API_KEY=k"},
		{"query, longer name", []v1alpha1.CredentialSource{query}, sent("api_key2=k&xapi_key=k&api_ke=k"), "", "?api_key2=k&xapi_key=k&api_ke=k"},
		{"query, empty pairs stay", []v1alpha1.CredentialSource{query}, sent("&&api_key=k&&a="), "k", "?&&&a="},
		{"query, empty stays", []v1alpha1.CredentialSource{query}, sent("?"), "", "?"},
		{"query, + is a space", []v1alpha1.CredentialSource{{Query: "api key"}}, sent("api+key=k&api%20key="), "k", ""},
		{"cookie", []v1alpha1.CredentialSource{cookie}, sent("", "Cookie: a=1; key=k; b=2"), "k", "Cookie: a=1; b=2"},
		{"cookie, first", []v1alpha1.CredentialSource{cookie}, sent("", "Cookie: key=k; b=2"), "k", "Cookie: b=2"},
		{"cookie, last", []v1alpha1.CredentialSource{cookie}, sent("", "Cookie: a=1; key=k"), "k", "Cookie: a=1"},
		{"cookie, alone", []v1alpha1.CredentialSource{cookie}, sent("", "Cookie: key=k", "A: 1"), "k", "A: 1"},
		{"cookie, no spaces", []v1alpha1.CredentialSource{cookie}, sent("", "Cookie: a=1;key=k;b=2"), "k", "Cookie: a=1;b=2"},
		{"cookie, odd spaces", []v1alpha1.CredentialSource{cookie}, sent("", "Cookie: a=1;\t key =\tk ;b=2"), "k", "Cookie: a=1;b=2"},
		{"cookie, twice, one behind a tab", []v1alpha1.CredentialSource{cookie}, sent("", "Cookie: key=k;\tkey=l"), repeated, ""},
		{"cookie, twice, in two fields", []v1alpha1.CredentialSource{cookie}, sent("", "Cookie: a=1; key=k", "cookie: key=l; b=2", "Cookie: c=3"), repeated, "Cookie: a=1 | cookie: b=2 | Cookie: c=3"},
		{"cookie, no value", []v1alpha1.CredentialSource{cookie}, sent("", "Cookie: key=; key; a=1"), "", "Cookie: a=1"},
		{"cookie, other case", []v1alpha1.CredentialSource{cookie}, sent("", "Cookie: KEY=k"), "", "Cookie: KEY=k"},
		{"cookie, = in the value", []v1alpha1.CredentialSource{cookie}, sent("", "Cookie: key=k=="), "k==", ""},
		{"cookie, untouched", []v1alpha1.CredentialSource{cookie}, sent("", "Cookie:  ;a=1;; b=key "), "", "Cookie:  ;a=1;; b=key "},
		{"the first place counts, and all are stripped", []v1alpha1.CredentialSource{cookie, header, query}, sent("api_key=q&a=1", "X-Key: h"), "h", "?a=1"},
		{"a repeated one is not passed over", []v1alpha1.CredentialSource{header, query}, sent("api_key=q", "X-Key: h", "X-Key: i"), repeated, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := source(t, tt.from...)
			got, twice := s.Find(tt.x)
			if twice && got == nil {
				got = []byte(repeated)
			}
			if string(got) != tt.want {
				t.Errorf("Find = %q, want %q", got, tt.want)
			}
			before := string(got)
			s.Strip(tt.x)
			if string(got) != before {
				t.Errorf("Strip changed what was found to %q", got)
			}
			if d := cmp.Diff(tt.left, shown(tt.x)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestNewSourceFaults(t *testing.T) {
	_, err := NewSource([]v1alpha1.CredentialSource{{}, {Header: "A", Query: "b"}, {Query: "a", Scheme: "Bearer"}, {Header: "a b"}, {Cookie: "a;b"}}, nil)
	want := `from[0]: names not exactly one place (write one of header, query and cookie)
from[1]: names not exactly one place (write one of header, query and cookie)
from[2].scheme: goes with header only
from[3].header: "a b" is not a header name
from[4].cookie: "a;b" is not a cookie name`
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestIdentityField(t *testing.T) {
	for _, bad := range []string{"Host", "authorization", "COOKIE", "Content-Type", "content_length", "Accept", "Accept-Language", "Connection", "Transfer_Encoding",
		"Forwarded", "X-Forwarded-For", "x_forwarded_host", "X-Real-IP", "X-Request-Id", "TE", "Upgrade", "Trailer", "If-Match", "Sec-WebSocket-Key", "Origin",
		"Access-Control-Request-Method", "User-Agent", "DPoP", "", "a b", "a:", "a\n"} {
		if IdentityField("f", bad) == nil {
			t.Errorf("%q may tell who calls", bad)
		}
	}
	for _, good := range []string{"X-User", "x_user", "X-Gatehouse-User", "Client-Cert", "Remote-User", "Hostess", "X-Accept"} {
		if err := IdentityField("f", good); err != nil {
			t.Error(err)
		}
	}
}

// FuzzSource: after Strip nothing is found, by us or by a server of another make, and everything else is there in its order.
func FuzzSource(f *testing.F) {
	f.Add("a=1&api_key=k&%61pi_key=l&b", "a=1; key=k;\tkey =l;;b", "Bearer t", "k")
	f.Add("&&api+key=&api_key", " key", "bearer", "")
	f.Add("%61%70%69%5f%6b%65%79=%6b&%", "key=\"k\"; key=k", "Bearer  ", "a: b")
	f.Fuzz(func(t *testing.T, query, cookies, authorization, key string) {
		places := []v1alpha1.CredentialSource{{Query: "api_key"}, {Cookie: "key"}, Bearer()[0], {Header: "X-Key"}}
		s := source(t, places...)
		x := sent(query, "Cookie: "+cookies, "A: 1", "Authorization: "+authorization, "X-Key: "+key, "cookie: z=26; "+cookies)
		x.Request.Query = []byte(query)
		first, twice := s.Find(x)
		var kept []string
		for pair := range strings.SplitSeq(query, "&") {
			raw, _, _ := strings.Cut(pair, "=")
			if name, err := url.QueryUnescape(raw); raw == "api_key" || err == nil && name == "api_key" {
				continue
			}
			kept = append(kept, pair)
		}
		s.Strip(x)
		if again, t2 := s.Find(x); again != nil || t2 {
			t.Fatalf("found %q first, and after Strip %q (%v) in %s", first, again, t2, shown(x))
		}
		if got := string(x.Request.Query); got != strings.Join(kept, "&") {
			t.Errorf("the query %q became %q, want %q", query, got, strings.Join(kept, "&"))
		}
		values, err := url.ParseQuery(string(x.Request.Query))
		if err == nil && values.Has("api_key") {
			t.Errorf("%q still has one", x.Request.Query)
		}
		cookiesLeft(t, cookies, x)
		if s := source(t, places[1]); !twice {
			y := sent("", "Cookie: "+cookies)
			found, twice := s.Find(y)
			standard(t, cookies, found, twice)
		}
	})
}

// cookiesLeft checks what Strip left of two Cookie fields.
func cookiesLeft(t *testing.T, cookies string, x *exchange.Exchange) {
	var want, got []string
	for _, list := range []string{cookies, "z=26; " + cookies} {
		for pair := range strings.SplitSeq(list, ";") {
			name, _, _ := strings.Cut(pair, "=")
			if p := strings.Trim(pair, " \t"); p != "" && strings.Trim(name, " \t") != "key" {
				want = append(want, p)
			}
		}
	}
	for _, f := range x.Request.Header.All() {
		if !exchange.EqualFold(f.Name, "cookie") {
			continue
		}
		for pair := range bytes.SplitSeq(f.Value, []byte(";")) {
			if p := strings.Trim(string(pair), " \t"); p != "" {
				got = append(got, p)
			}
		}
	}
	if !slices.Equal(want, got) {
		t.Errorf("of %q was left %q, want %q", cookies, got, want)
	}
	r := http.Request{Header: http.Header{}}
	for _, f := range x.Request.Header.All() {
		r.Header.Add(string(f.Name), string(f.Value))
	}
	if left := r.CookiesNamed("key"); len(left) > 0 {
		t.Errorf("a server of Go's library still reads %v in %s", left, shown(x))
	}
}

// standard checks that a cookie that Go's library would read, and only one, is the one that was found.
func standard(t *testing.T, cookies string, found []byte, twice bool) {
	r := http.Request{Header: http.Header{"Cookie": {cookies}}}
	var read []string
	for _, c := range r.CookiesNamed("key") {
		if c.Value != "" {
			read = append(read, c.Value)
		}
	}
	switch {
	case len(read) > 1 && !twice:
		t.Errorf("%q: a server reads %q, and one was found: %q", cookies, read, found)
	case len(read) == 1 && !twice && strings.Trim(string(found), `"`) != read[0]:
		t.Errorf("%q: a server reads %q, and %q was found", cookies, read, found)
	}
}
