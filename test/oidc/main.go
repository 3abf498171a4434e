// Command oidc is a real OpenID provider for tests: that of zitadel/oidc, over storage in memory, with one client and one person, who logs
// in without a form. It listens on loopback alone, prints its issuer, and ends with its standard input. It never is for anything but tests:
// what lies under /test/ is open to everybody who reaches it.
//
//	GET  /login?id=REQUEST            logs in the person that the cookie person names (ann), or "denied": nobody
//	POST /test/client redirect=URI    registers where the client's people may be sent back to, and logout=URI after logging out
//	POST /test/rotate                 signs with a new key from now on
//	POST /test/revoke                 ends all refresh tokens
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "oidc:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("oidc", flag.ContinueOnError)
	c := client{}
	flags.StringVar(&c.id, "client", "web", "`id` of the client")
	flags.StringVar(&c.secret, "secret", "test", "its `secret`")
	flags.BoolVar(&c.post, "post", false, "the client shows its secret in the form")
	flags.DurationVar(&c.lifetime, "lifetime", time.Hour, "of access and id tokens")
	algorithm := flags.String("alg", "RS256", "that tokens are signed with: RS256 or ES256")
	if err := flags.Parse(args); err != nil {
		return err
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	s, err := newStorage(&c, *algorithm)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	issuer := "http://" + l.Addr().String()
	handler, err := handlerOf(issuer, s)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	fmt.Fprintln(stdout, issuer)
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		close(over)
	}()
	select {
	case err := <-failed:
		return err
	case <-over:
	case <-ctx.Done():
	}
	return server.Close()
}

// handlerOf is the provider, its login, and what tests change.
func handlerOf(issuer string, s *storage) (http.Handler, error) {
	config := &op.Config{CodeMethodS256: true, AuthMethodPost: s.client.post, GrantTypeRefreshToken: true, DefaultLogoutRedirectURI: "/logged-out"}
	if _, err := rand.Read(config.CryptoKey[:]); err != nil {
		return nil, err
	}
	provider, err := op.NewProvider(config, s, op.StaticIssuer(issuer), op.WithAllowInsecure())
	if err != nil {
		return nil, err
	}
	back := op.AuthCallbackURL(provider)
	mux := http.NewServeMux()
	mux.Handle("/", provider)
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("id")
		person := "ann"
		if c, err := r.Cookie("person"); err == nil {
			person = cmp.Or(c.Value, person)
		}
		request, err := s.AuthRequestByID(r.Context(), id)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if person == "denied" {
			op.AuthRequestError(w, r, request, oidc.ErrAccessDenied(), provider)
			return
		}
		s.login(id, person)
		http.Redirect(w, r, back(op.ContextWithIssuer(r.Context(), issuer), id), http.StatusFound)
	})
	mux.HandleFunc("GET /logged-out", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "logged out\n") })
	mux.HandleFunc("POST /test/client", func(_ http.ResponseWriter, r *http.Request) {
		s.register(r.FormValue("redirect"), r.FormValue("logout"))
	})
	mux.HandleFunc("POST /test/rotate", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.rotate(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("POST /test/revoke", func(http.ResponseWriter, *http.Request) { s.revokeAll() })
	return mux, nil
}
