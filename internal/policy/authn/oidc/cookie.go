package oidc

import (
	"bytes"
	"strconv"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

const (
	maxChunk  = 3800 // bytes of one cookie's value: browsers take 4096 with the name and the attributes
	maxChunks = 5
	maxLogins = 4 // attempts that a browser keeps
	idSize    = 8 // letters of an attempt's id
)

// hostPrefix makes a browser refuse the cookie from anybody but this host, over https, for all paths.
const hostPrefix = "__Host-"

// names are those of the method's cookies, over http and over https.
type names struct {
	http, https spelling
}

type spelling struct{ session, login string }

func newNames(cookie string) names {
	of := func(s string) spelling { return spelling{session: s, login: s + "_login_"} }
	return names{of(cookie), of(hostPrefix + cookie)}
}

func (n *names) of(x *exchange.Exchange) *spelling {
	if x.Scheme == "https" {
		return &n.https
	}
	return &n.http
}

type cookieState int

const (
	cookieAbsent cookieState = iota
	cookieFound
	cookieRepeated
	cookieMalformed
)

// find puts the session's cookies together: one of the session's name; or name.0, whose value begins with how many there are, and the rest.
func (n *names) find(x *exchange.Exchange) (text []byte, state cookieState) {
	name := n.of(x).session
	var whole []byte
	var chunks [maxChunks][]byte
	found := false
	for _, f := range x.Request.Header.All() {
		if !exchange.EqualFold(f.Name, "cookie") {
			continue
		}
		for rest := f.Value; len(rest) > 0; {
			var k, v []byte
			k, v, rest = nextCookie(rest)
			to := &whole
			if len(k) != len(name) {
				i := chunkOf(k, name)
				if i < 0 {
					continue
				}
				to = &chunks[i]
			} else if string(k) != name {
				continue
			}
			if *to != nil {
				return nil, cookieRepeated
			}
			*to, found = v, true
		}
	}
	switch {
	case !found:
		return nil, cookieAbsent
	case whole != nil:
		return whole, sizeState(len(whole))
	}
	return join(x, &chunks)
}

func sizeState(n int) cookieState {
	if n == 0 || n > maxChunk {
		return cookieMalformed
	}
	return cookieFound
}

func join(x *exchange.Exchange, chunks *[maxChunks][]byte) ([]byte, cookieState) {
	first := chunks[0]
	if len(first) < 3 || first[1] != '.' || first[0] < '2' || first[0] > '0'+maxChunks {
		return nil, cookieMalformed
	}
	var parts [maxChunks][]byte
	count := int(first[0] - '0')
	for i := range count {
		if sizeState(len(chunks[i])) != cookieFound {
			return nil, cookieMalformed
		}
		parts[i] = chunks[i]
	}
	parts[0] = first[2:]
	text, _ := x.Keep(parts[:count]...)
	return text, cookieFound
}

// nextCookie cuts the first pair off a Cookie field (RFC 6265 section 4.2.1). Values of ours are never quoted.
func nextCookie(b []byte) (name, value, rest []byte) {
	pair, rest, _ := bytes.Cut(b, semicolon)
	name, value, _ = bytes.Cut(bytes.Trim(pair, " \t"), equals)
	if value == nil {
		value = []byte{}
	}
	return name, value, rest
}

var (
	semicolon = []byte(";")
	equals    = []byte("=")
	separator = []byte("; ")
)

// chunkOf is the number of a chunk's cookie, -1 if it is none.
func chunkOf(k []byte, name string) int {
	if len(k) == len(name)+2 && string(k[:len(name)]) == name && k[len(name)] == '.' {
		if i := int(k[len(k)-1]) - '0'; i >= 0 && i < maxChunks {
			return i
		}
	}
	return -1
}

// mine reports whether a cookie is of the method, in either spelling.
func (n *names) mine(k []byte) bool {
	for _, s := range [...]*spelling{&n.http, &n.https} {
		if string(k) == s.session || chunkOf(k, s.session) >= 0 || len(k) > len(s.login) && string(k[:len(s.login)]) == s.login {
			return true
		}
	}
	return false
}

// strip takes the method's cookies out of the request, so that no backend sees them. What remains stays in its fields.
func (n *names) strip(x *exchange.Exchange) {
	empty := false
	all := x.Request.Header.All()
	for i := range all {
		f := &all[i]
		if !exchange.EqualFold(f.Name, "cookie") || !n.any(f.Value) {
			continue
		}
		var room [2048]byte
		kept := room[:0]
		for rest := f.Value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, semicolon)
			pair = bytes.Trim(pair, " \t")
			if k, _, _ := bytes.Cut(pair, equals); len(pair) == 0 || n.mine(k) {
				continue
			}
			if len(kept) > 0 {
				kept = append(kept, separator...)
			}
			kept = append(kept, pair...)
		}
		f.Value, _ = x.Keep(kept)
		empty = empty || len(kept) == 0
	}
	if empty {
		x.Request.Header.DelFunc(func(f exchange.Field) bool { return len(f.Value) == 0 && exchange.EqualFold(f.Name, "cookie") })
	}
}

func (n *names) any(cookies []byte) bool {
	for rest := cookies; len(rest) > 0; {
		var k []byte
		k, _, rest = nextCookie(rest)
		if n.mine(k) {
			return true
		}
	}
	return false
}

// here are the names of the request's cookies of this method in the spelling of its scheme.
func (n *names) here(x *exchange.Exchange) (sessions, logins []string) {
	s := n.of(x)
	for _, f := range x.Request.Header.All() {
		if !exchange.EqualFold(f.Name, "cookie") {
			continue
		}
		for rest := f.Value; len(rest) > 0; {
			var k []byte
			k, _, rest = nextCookie(rest)
			switch {
			case string(k) == s.session || chunkOf(k, s.session) >= 0:
				sessions = append(sessions, string(k))
			case isLogin(k, s.login):
				logins = append(logins, string(k))
			}
		}
	}
	return sessions, logins
}

// isLogin reports whether a cookie has the name of an attempt. Only such a name may stand in an answer.
func isLogin(k []byte, prefix string) bool {
	return len(k) == len(prefix)+idSize && string(k[:len(prefix)]) == prefix && isID(k[len(prefix):])
}

// isID reports whether b is letters of base64url alone.
func isID(b []byte) bool {
	for _, c := range b {
		if c-'a' >= 26 && c-'A' >= 26 && c-'0' >= 10 && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// set is a Set-Cookie value; age in seconds, 0 to take the cookie away.
func set(x *exchange.Exchange, name string, value []byte, age int64) []byte {
	return setOver(x.Scheme == "https", name, value, age)
}

func setOver(secure bool, name string, value []byte, age int64) []byte {
	b := make([]byte, 0, len(name)+len(value)+80)
	b = append(append(append(b, name...), '='), value...)
	b = append(b, "; Path=/; Max-Age="...)
	b = strconv.AppendInt(b, age, 10)
	b = append(b, "; HttpOnly; SameSite=Lax"...)
	if secure {
		b = append(b, "; Secure"...)
	}
	return b
}

// jar is what is needed of a request to write its session's cookies later, when the exchange may not be touched.
type jar struct {
	name   string
	secure bool
	old    []string // session cookies that the browser has
}

func (n *names) jar(x *exchange.Exchange) jar {
	old, _ := n.here(x)
	return jar{n.of(x).session, x.Scheme == "https", old}
}

// write makes the Set-Cookie values of a session, and takes away what the browser has of another one; false: it does not fit.
func (j *jar) write(sealed []byte, age int64) (cookies [][]byte, ok bool) {
	used := map[string]bool{}
	put := func(name string, value []byte) {
		used[name] = true
		cookies = append(cookies, setOver(j.secure, name, value, age))
	}
	if len(sealed) <= maxChunk {
		put(j.name, sealed)
	} else {
		count := (len(sealed) + 2 + maxChunk - 1) / maxChunk
		if count > maxChunks {
			return nil, false
		}
		all := append([]byte{byte('0' + count), '.'}, sealed...)
		for i := range count {
			put(j.name+"."+strconv.Itoa(i), all[i*maxChunk:min((i+1)*maxChunk, len(all))])
		}
	}
	for _, name := range j.old {
		if !used[name] {
			cookies = append(cookies, setOver(j.secure, name, nil, 0))
		}
	}
	return cookies, true
}

// clear takes the session's cookies away.
func (j *jar) clear() (cookies [][]byte) {
	for _, name := range j.old {
		cookies = append(cookies, setOver(j.secure, name, nil, 0))
	}
	return cookies
}
