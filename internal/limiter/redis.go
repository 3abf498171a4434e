package limiter

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Redis is where a Redis or Valkey server is; ParseRedisURL makes it. The zero value is none. It prints without its password.
type Redis struct {
	addr, host         string
	username, password string
	db                 int
	tls                bool
}

func (r Redis) set() bool { return r.addr != "" }

// String is the URL without name and password.
func (r Redis) String() string {
	if !r.set() {
		return ""
	}
	scheme := "redis"
	if r.tls {
		scheme = "rediss"
	}
	return fmt.Sprintf("%s://%s/%d", scheme, r.addr, r.db)
}

// GoString is String: %#v shows no password either.
func (r Redis) GoString() string { return r.String() }

// ParseRedisURL parses redis://user:password@host:port/db; rediss:// speaks TLS 1.2 or later and checks the certificate by the system's
// roots. User, password, port (6379) and db (0) may be left out. "" is no store. Errors never show the password.
func ParseRedisURL(s string) (Redis, error) {
	if s == "" {
		return Redis{}, nil
	}
	const hint = "write redis://user:password@host:6379/0, or rediss:// for TLS"
	u, err := url.Parse(s)
	if err != nil {
		var e *url.Error // it quotes the URL, and with it the password
		if errors.As(err, &e) && !strings.Contains(s, "@") {
			err = e.Err
		} else {
			err = errors.New("a character in it must be percent-encoded")
		}
		return Redis{}, fmt.Errorf("the URL of Redis cannot be read: %w (%s)", err, hint)
	}
	r := Redis{tls: u.Scheme == "rediss", host: u.Hostname()}
	switch {
	case u.Scheme != "redis" && u.Scheme != "rediss":
		return Redis{}, fmt.Errorf("the URL of Redis has the scheme %q (%s)", u.Scheme, hint)
	case u.Opaque != "" || r.host == "":
		return Redis{}, fmt.Errorf("the URL of Redis names no host (%s)", hint)
	case u.RawQuery != "" || u.Fragment != "":
		return Redis{}, fmt.Errorf("the URL of Redis has something after its path: no options are known (%s)", hint)
	}
	port := "6379"
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return Redis{}, fmt.Errorf("the URL of Redis has the port %q, which is none from 1 to 65535 (%s)", p, hint)
		}
		port = p
	}
	r.addr = net.JoinHostPort(r.host, port)
	if p := strings.TrimPrefix(u.Path, "/"); p != "" {
		if r.db, err = strconv.Atoi(p); err != nil || r.db < 0 {
			return Redis{}, fmt.Errorf("the URL of Redis has the database %q, which is no number (%s)", p, hint)
		}
	}
	if u.User != nil {
		r.username = u.User.Username()
		r.password, _ = u.User.Password()
	}
	return r, nil
}

// options are those of the client: small buffers, few connections, everything in the pipeline (there a request that no longer
// waits does not cost the connection), and no caching, which would need another kind of connection.
func (r Redis) options() rueidis.ClientOption {
	o := rueidis.ClientOption{
		InitAddress: []string{r.addr}, Username: r.username, Password: r.password, SelectDB: r.db,
		ClientName: "gatehouse", DisableCache: true, DisableRetry: true, AlwaysPipelining: true, PipelineMultiplex: 1,
		ReadBufferEachConn: 32 << 10, WriteBufferEachConn: 32 << 10,
		Dialer: net.Dialer{Timeout: time.Second, KeepAlive: time.Second}, ConnWriteTimeout: 5 * time.Second,
	}
	if r.tls {
		o.TLSConfig = &tls.Config{ServerName: r.host, MinVersion: tls.VersionTLS12}
	}
	return o
}
