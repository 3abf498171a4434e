//go:build linux

// Command body moves large bodies: it is the backend that takes or sends them, and the client that does the other half.
//
//	body -listen 127.0.0.1:9000
//	body -to 127.0.0.1:8080 -host localhost -do upload|chunked|download|crumbs-up|crumbs-down -bytes 1073741824 [-roots FILE]
//
// The client prints for how many nanoseconds the body was under way.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

const (
	piece = 64 << 10 // bytes of one read, write or chunk
	crumb = 10       // bytes of a chunk where they are small
)

func main() {
	listen := flag.String("listen", "", "be the backend, on this address")
	var t transfer
	flag.StringVar(&t.to, "to", "", "be the client, of the proxy at this address")
	flag.StringVar(&t.host, "host", "localhost", "name of the host that is asked for")
	flag.StringVar(&t.path, "path", "/", "path that is asked for")
	flag.StringVar(&t.do, "do", "download", "upload, chunked, download, or crumbs-up, crumbs-down: in chunks of ten bytes")
	flag.Int64Var(&t.bytes, "bytes", 1<<30, "length of the body")
	flag.StringVar(&t.roots, "roots", "", "with TLS, trusting the certificates in this file")
	flag.Parse()
	if err := run(*listen, t); err != nil {
		fmt.Fprintln(os.Stderr, "body:", err)
		os.Exit(1)
	}
}

func run(listen string, t transfer) error {
	if listen != "" {
		s := &http.Server{Addr: listen, Handler: http.HandlerFunc(serve), ReadHeaderTimeout: 10 * time.Second}
		return s.ListenAndServe()
	}
	took, err := t.run()
	if err == nil {
		fmt.Println(took.Nanoseconds())
	}
	return err
}

// serve takes the whole body and says how long it was, or sends as many bytes as it is asked for.
func serve(w http.ResponseWriter, r *http.Request) {
	buf := make([]byte, piece)
	n, err := io.CopyBuffer(io.Discard, onlyReader{r.Body}, buf)
	if err != nil {
		panic(http.ErrAbortHandler) // the client is gone
	}
	size, _ := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64) // none: an empty answer
	if r.URL.Query().Has("crumbs") {
		if err := crumbs(w, size); err != nil {
			panic(http.ErrAbortHandler)
		}
		return
	}
	w.Header().Set("X-Bytes", strconv.FormatInt(n, 10))
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	clear(buf)
	for size > 0 {
		n, err := w.Write(buf[:min(size, piece)])
		if err != nil {
			return
		}
		size -= int64(n)
	}
}

// crumbs answers with a body in chunks of ten bytes, written many at a time: net/http would make larger chunks of them.
func crumbs(w http.ResponseWriter, size int64) error {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	return sendCrumbs(conn, size)
}

// sendCrumbs writes size bytes in chunks of ten, and the end of the body.
func sendCrumbs(w io.Writer, size int64) error {
	buf := make([]byte, 0, piece+16)
	for size > 0 {
		n := min(size, crumb)
		buf = fmt.Appendf(buf, "%x\r\n%s\r\n", n, "0123456789"[:n])
		if size -= n; len(buf) >= piece-16 || size == 0 {
			if _, err := w.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
	_, err := io.WriteString(w, "0\r\n\r\n")
	return err
}

// onlyReader hides what else a body can do, so that it is read in pieces of the same size wherever it comes from.
type onlyReader struct{ io.Reader }

// transfer is one body on its way through a proxy.
type transfer struct {
	to, host, path, do, roots string
	bytes                     int64
}

// run moves the body and returns how long that took, from the first byte of the request to the last of the answer.
func (t transfer) run() (time.Duration, error) {
	conn, err := net.Dial("tcp4", t.to)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if t.roots != "" {
		if conn, err = t.secure(conn); err != nil {
			return 0, err
		}
	}
	begin := time.Now()
	head := map[string]string{
		"upload":      fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", t.path, t.host, t.bytes),
		"chunked":     fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n", t.path, t.host),
		"crumbs-up":   fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n", t.path, t.host),
		"crumbs-down": fmt.Sprintf("GET %s?crumbs&bytes=%d HTTP/1.1\r\nHost: %s\r\n\r\n", t.path, t.bytes, t.host),
		"download":    fmt.Sprintf("GET %s?bytes=%d HTTP/1.1\r\nHost: %s\r\n\r\n", t.path, t.bytes, t.host),
	}[t.do]
	if head == "" {
		return 0, fmt.Errorf("-do %q is none of upload, chunked, download, crumbs-up, crumbs-down", t.do)
	}
	if _, err := io.WriteString(conn, head); err != nil {
		return 0, err
	}
	down := t.do == "download" || t.do == "crumbs-down"
	if !down {
		if err := t.send(conn); err != nil {
			return 0, fmt.Errorf("sending the body: %w", err)
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	got, err := io.CopyBuffer(io.Discard, onlyReader{res.Body}, make([]byte, piece))
	if err != nil {
		return 0, fmt.Errorf("reading the answer: %w", err)
	}
	if !down {
		got, _ = strconv.ParseInt(res.Header.Get("X-Bytes"), 10, 64) // none: not all, as is said next
	}
	if res.StatusCode != http.StatusOK || got != t.bytes {
		return 0, fmt.Errorf("status %d, %d of %d bytes arrived", res.StatusCode, got, t.bytes)
	}
	return time.Since(begin), nil
}

func (t transfer) secure(conn net.Conn) (net.Conn, error) {
	pem, err := os.ReadFile(t.roots)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + t.roots)
	}
	s := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: t.host, MinVersion: tls.VersionTLS13})
	return s, s.Handshake()
}

// send writes the body, each piece with one call.
func (t transfer) send(w io.Writer) error {
	if t.do == "crumbs-up" {
		return sendCrumbs(w, t.bytes)
	}
	buf := make([]byte, 0, piece+16)
	zeros := make([]byte, piece)
	for left := t.bytes; left > 0; {
		n := min(left, piece)
		buf = buf[:0]
		if t.do == "chunked" {
			buf = fmt.Appendf(buf, "%x\r\n", n)
		}
		buf = append(buf, zeros[:n]...)
		if t.do == "chunked" {
			buf = append(buf, "\r\n"...)
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
		left -= n
	}
	if t.do == "chunked" {
		_, err := io.WriteString(w, "0\r\n\r\n")
		return err
	}
	return nil
}
