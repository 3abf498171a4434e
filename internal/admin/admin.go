// Package admin holds the two HTTP servers that are not the data plane: health (read only, meant for probes and scrapes) and
// admin (what the edge is doing, meant for its operator). The values they show are handed in. Neither changes anything, and
// the admin server answers only who reaches it by the name or address it was told, with the token where there is one, and
// never a browser's page of another origin.
package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"strings"
)

// Field is one header field of a request to explain.
type Field struct{ Name, Value string }

// Query is a request to explain.
type Query struct {
	Method string
	URL    string
	From   netip.Addr // invalid: not said
	Header []Field
}

// Values is what the admin server shows. A nil function's path answers 404. An error is shown to the operator, with 400 if it
// is a *BadRequest, else 500.
type Values struct {
	// Routes and Explain write a text for people, or JSON.
	Routes  func(asJSON bool) ([]byte, error)
	Explain func(q Query, asJSON bool) ([]byte, error)
	// Config returns what is marshalled as JSON: versions, sources, faults; never secrets.
	Config func() (any, error)
}

// BadRequest is a fault in what the operator asked.
type BadRequest struct{ Msg string }

func (b *BadRequest) Error() string { return b.Msg }

// Options of the admin server.
type Options struct {
	// Token, if not empty, must come as "Authorization: Bearer".
	Token string
	// Hosts are the names and addresses, besides loopback's, under which the server may be asked for: those of --admin.
	Hosts []string
	// Unix says that the server listens on a unix socket: its file mode guards it and Host says nothing.
	Unix bool
	// AnyHost leaves Host unchecked: only with a token, for a server on every address.
	AnyHost bool
}

// New returns the admin handler: /debug/routes, /debug/explain (?method=&url=&from=&header=Name:+value), /debug/config,
// /debug/pprof/; ?o=json gives JSON where a text for people is the default.
func New(v Values, o Options) http.Handler {
	mux := http.NewServeMux()
	page := func(path string, f func(r *http.Request, asJSON bool) ([]byte, error)) {
		mux.Handle(path, readOnly(func(w http.ResponseWriter, r *http.Request) {
			asJSON := r.URL.Query().Get("o") == "json"
			b, err := f(r, asJSON)
			show(w, b, asJSON, err)
		}))
	}
	if v.Routes != nil {
		page("/debug/routes", func(_ *http.Request, asJSON bool) ([]byte, error) { return v.Routes(asJSON) })
	}
	if v.Explain != nil {
		page("/debug/explain", func(r *http.Request, asJSON bool) ([]byte, error) {
			q, err := query(r)
			if err != nil {
				return nil, err
			}
			return v.Explain(q, asJSON)
		})
	}
	if v.Config != nil {
		mux.Handle("/debug/config", readOnly(func(w http.ResponseWriter, _ *http.Request) {
			c, err := v.Config()
			var b []byte
			if err == nil {
				b, err = json.MarshalIndent(c, "", "  ")
			}
			show(w, append(b, '\n'), true, err)
		}))
	}
	mux.Handle("/debug/pprof/", readOnly(pprof.Index))
	mux.Handle("/debug/pprof/cmdline", http.HandlerFunc(notFound)) // it would show file names and tokens given as arguments
	mux.Handle("/debug/pprof/profile", readOnly(pprof.Profile))
	mux.Handle("/debug/pprof/trace", readOnly(pprof.Trace))
	mux.Handle("/debug/pprof/symbol", readOnly(pprof.Symbol))
	mux.HandleFunc("/", notFound)
	return guard(mux, o)
}

// guard refuses, in this order: requests for a foreign Host (a page whose name was bound to our address), requests that a
// page of any origin makes, and requests without the token.
func guard(next http.Handler, o Options) http.Handler {
	want := sha256.Sum256([]byte(o.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !o.Unix && !(o.AnyHost && o.Token != "") && !ownHost(r.Host, o.Hosts):
			problem(w, http.StatusMisdirectedRequest, "host_not_allowed",
				"this server answers only to localhost and the address it was given")
		case r.Header.Get("Origin") != "" || foreignSite(r.Header.Get("Sec-Fetch-Site")):
			problem(w, http.StatusForbidden, "origin_not_allowed", "pages may not call this server")
		case o.Token != "" && !bearer(r, want):
			w.Header().Set("WWW-Authenticate", `Bearer realm="gatehouse admin"`)
			problem(w, http.StatusUnauthorized, "token_required", "send Authorization: Bearer with the token of --admin-token-file")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// foreignSite: a browser says "none" when the user typed the address, and "same-origin" from our own pages.
func foreignSite(s string) bool { return s != "" && s != "none" && s != "same-origin" }

func bearer(r *http.Request, want [sha256.Size]byte) bool {
	vs := r.Header.Values("Authorization")
	if len(vs) != 1 {
		return false
	}
	scheme, token, ok := strings.Cut(vs[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	got := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// ownHost reports whether host, with or without a port, is loopback's or one of hosts.
func ownHost(host string, hosts []string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	if err == nil && a.Unmap().IsLoopback() {
		return true
	}
	for _, h := range hosts {
		if strings.EqualFold(h, host) {
			return true
		}
		if b, e := netip.ParseAddr(h); err == nil && e == nil && a.Unmap() == b.Unmap() {
			return true
		}
	}
	return false
}

func query(r *http.Request) (Query, error) {
	f := r.URL.Query()
	q := Query{Method: f.Get("method"), URL: f.Get("url")}
	if q.Method == "" {
		q.Method = http.MethodGet
	}
	if q.URL == "" {
		return q, &BadRequest{"url is missing: /debug/explain?method=GET&url=http://shop.example/cart"}
	}
	if s := f.Get("from"); s != "" {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return q, &BadRequest{fmt.Sprintf("from: %q is not an IP address", s)}
		}
		q.From = a
	}
	for _, h := range f["header"] {
		name, value, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return q, &BadRequest{fmt.Sprintf("header: %q is not \"Name: value\"", h)}
		}
		q.Header = append(q.Header, Field{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
	}
	return q, nil
}

func show(w http.ResponseWriter, b []byte, asJSON bool, err error) {
	var bad *BadRequest
	switch {
	case errors.As(err, &bad):
		problem(w, http.StatusBadRequest, "bad_request", bad.Msg)
		return
	case err != nil:
		problem(w, http.StatusInternalServerError, "internal_error", err.Error())
		return
	}
	headers(w)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if asJSON {
		w.Header().Set("Content-Type", "application/json")
	}
	_, _ = w.Write(b) // the client went away: nothing to be done
}

func headers(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
}

// readOnly lets GET and HEAD through.
func readOnly(f http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			problem(w, http.StatusMethodNotAllowed, "method_not_allowed", "this path is read only")
			return
		}
		headers(w)
		f(w, r)
	})
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	problem(w, http.StatusNotFound, "not_found", "there is nothing here")
}

// problem answers with a problem document (RFC 9457).
func problem(w http.ResponseWriter, status int, reason, detail string) {
	b, err := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Reason string `json:"reason"`
	}{"about:blank", http.StatusText(status), status, detail, reason})
	if err != nil {
		b = nil
	}
	headers(w)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

// ReadToken reads the file of --admin-token-file: one line of at least 16 characters.
func ReadToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the admin token: %w", err)
	}
	t := string(bytes.TrimSpace(b))
	if len(t) < 16 || strings.ContainsAny(t, " \t\r\n") {
		return "", fmt.Errorf("reading the admin token: %s must hold one word of at least 16 characters", path)
	}
	return t, nil
}
