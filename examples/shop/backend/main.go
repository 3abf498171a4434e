// Command backend is the shop's sample backends: each answers a line that names itself and the request as it arrived, so that one
// sees what Gatehouse made of it. It is for trying out, not for load.
//
//	backend web-service=127.0.0.1:9101 api-service=127.0.0.1:9102
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "backend:", err)
		os.Exit(1)
	}
}

// run serves each name=address of args until ctx ends or one of them fails. It prints a line for each once it listens.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return errors.New("name at least one backend: name=address")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var servers []*http.Server
	for _, a := range args {
		name, address, ok := strings.Cut(a, "=")
		if !ok {
			return fmt.Errorf("%q is not name=address", a)
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("listening for %s: %w", name, err)
		}
		s := &http.Server{Handler: backend(name), ReadHeaderTimeout: 10 * time.Second}
		servers = append(servers, s)
		go func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("serving %s: %w", name, err))
			}
		}()
		fmt.Fprintf(stdout, "%s listens on %s\n", name, l.Addr())
	}
	<-ctx.Done()
	for _, s := range servers {
		s.Close()
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// backend answers every request with one line: its name, method and target, host, what the proxy says about the client, the
// X-Shop- fields, and the size of the body if there is one.
func backend(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return // the client is gone
		}
		line := fmt.Sprintf("%s: %s %s host=%s", name, r.Method, r.URL.RequestURI(), r.Host)
		for _, h := range []string{"X-Forwarded-For", "X-Forwarded-Proto"} {
			if v := r.Header.Get(h); v != "" {
				line += fmt.Sprintf(" %s=%s", strings.ToLower(strings.TrimPrefix(h, "X-Forwarded-")), v)
			}
		}
		var own []string
		for h, v := range r.Header {
			if strings.HasPrefix(h, "X-Shop-") {
				own = append(own, strings.ToLower(h)+"="+strings.Join(v, ","))
			}
		}
		slices.Sort(own)
		for _, o := range own {
			line += " " + o
		}
		if n > 0 {
			line += fmt.Sprintf(" body=%d", n)
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, line)
	})
}
