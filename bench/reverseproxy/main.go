// Command reverseproxy is the proxy that a Go programmer writes in an afternoon: net/http and httputil.ReverseProxy with a map of
// hosts. It is measured to show what net/http costs by itself.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	plain := flag.String("http", "127.0.0.1:8080", "address for HTTP")
	secure := flag.String("https", "127.0.0.1:8443", "address for HTTPS")
	cert := flag.String("cert", "", "certificate, PEM")
	key := flag.String("key", "", "its key, PEM")
	routes := flag.String("routes", "", "file with a route per line: host prefix URL")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *plain, *secure, *cert, *key, *routes); err != nil {
		fmt.Fprintln(os.Stderr, "reverseproxy:", err)
		os.Exit(1)
	}
}

// route is where the requests of a host go whose path lies under prefix.
type route struct {
	prefix string
	to     *url.URL
}

func run(ctx context.Context, plain, secure, cert, key, routes string) error {
	f, err := os.Open(routes)
	if err != nil {
		return fmt.Errorf("reading routes: %w", err)
	}
	defer f.Close()
	table, err := readRoutes(f)
	if err != nil {
		return fmt.Errorf("reading routes: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	l, err := net.Listen("tcp", plain)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	tl, err := tls.Listen("tcp", secure, &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
	})
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	s := &http.Server{Handler: handler(table), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 90 * time.Second}
	done := make(chan error, 2)
	go func() { done <- s.Serve(l) }()
	go func() { done <- s.Serve(tl) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		s.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func readRoutes(r io.Reader) (map[string][]route, error) {
	table := map[string][]route{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 3 {
			return nil, fmt.Errorf("%q is not: host prefix URL", lines.Text())
		}
		to, err := url.Parse(f[2])
		if err != nil {
			return nil, err
		}
		table[f[0]] = append(table[f[0]], route{f[1], to})
	}
	return table, lines.Err()
}

// buffers is the pool that ReverseProxy copies bodies with.
type buffers struct{ sync.Pool }

func (b *buffers) Get() []byte  { return *b.Pool.Get().(*[]byte) }
func (b *buffers) Put(p []byte) { b.Pool.Put(&p) }

// found carries the route from the handler to Rewrite.
type found struct{}

func handler(table map[string][]route) http.Handler {
	transport := &http.Transport{MaxIdleConnsPerHost: 1024, IdleConnTimeout: 90 * time.Second, DisableCompression: true}
	proxy := &httputil.ReverseProxy{
		Transport:  transport,
		BufferPool: &buffers{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}},
		ErrorLog:   log.New(os.Stderr, "reverseproxy: ", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			to := r.In.Context().Value(found{}).(*url.URL)
			r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host
			r.Out.Host = r.In.Host
			r.SetXForwarded()
			host, _, _ := net.SplitHostPort(r.In.RemoteAddr)
			_, port, _ := net.SplitHostPort(r.In.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
			r.Out.Header.Set("X-Forwarded-Port", port)
			r.Out.Header.Set("X-Real-Ip", host)
			var id [16]byte
			_, _ = rand.Read(id[:]) // never fails
			r.Out.Header.Set("X-Request-Id", hex.EncodeToString(id[:]))
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := strings.Cut(r.Host, ":")
		for _, t := range table[host] {
			if strings.HasPrefix(r.URL.Path, t.prefix) {
				proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), found{}, t.to)))
				return
			}
		}
		http.NotFound(w, r)
	})
}
