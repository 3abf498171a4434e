package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"
)

const unixPrefix = "unix:"

// CheckAddress says whether the admin server may listen on addr: "unix:PATH", or "host:port", which needs a token unless host
// is a loopback address or localhost. An empty host is every address, so it needs one.
func CheckAddress(addr string, hasToken bool) error {
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		if path == "" {
			return errors.New("unix: needs a path, as in unix:/run/gatehouse/admin.sock")
		}
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not host:port or unix:PATH", addr)
	}
	if hasToken || host == "localhost" {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Unmap().IsLoopback() {
		return nil
	}
	return fmt.Errorf("the admin address %s is not loopback: it needs --admin-token-file", addr)
}

// OptionsFor is the options of an admin server at addr: which hosts it may be asked for follows from the address.
func OptionsFor(addr, token string) Options {
	if strings.HasPrefix(addr, unixPrefix) {
		return Options{Token: token, Unix: true}
	}
	o := Options{Token: token}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return o
	}
	if a, err := netip.ParseAddr(host); host == "" || (err == nil && a.IsUnspecified()) {
		o.AnyHost = token != ""
		return o
	}
	o.Hosts = []string{host}
	return o
}

// Listen opens addr, "host:port" or "unix:PATH". A unix socket is made for its owner alone (mode 0600); one that was left behind by a
// process that is gone is replaced, one that somebody listens on is not.
func Listen(addr string) (net.Listener, error) {
	path, ok := strings.CutPrefix(addr, unixPrefix)
	if !ok {
		return net.Listen("tcp", addr)
	}
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is there and is not a socket", path)
		}
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("%s is in use by another process", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing the socket that was left behind: %w", err)
		}
	}
	return listenPrivate(path)
}

// listenPrivate binds below a directory of its own, which nobody else can enter, and moves the socket to its place when its
// mode is set: there is no moment at which another user could connect.
func listenPrivate(path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(dirOf(path), ".gh-")
	if err != nil {
		return nil, fmt.Errorf("making the admin socket: %w", err)
	}
	defer os.RemoveAll(dir)
	tmp := dir + "/s"
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	if err = os.Chmod(tmp, 0o600); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("making the admin socket: %w", err)
	}
	return &unixListener{ln, path}, nil
}

func dirOf(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	} else if i == 0 {
		return "/"
	}
	return "."
}

// unixListener removes its socket when it is closed.
type unixListener struct {
	*net.UnixListener
	path string
}

func (u *unixListener) Close() error {
	_ = os.Remove(u.path)
	return u.UnixListener.Close()
}

// Serve answers on ln until ctx ends, then lets the requests under way finish for at most 5 s.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      5 * time.Minute, // a CPU profile or a trace takes as long as it is asked to
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(last); err != nil {
		return s.Close()
	}
	return nil
}
