package proxy

import (
	"strconv"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// session is what an exchange knows of its client's affinity (GEP-1619). A client shows a token that names an endpoint without telling
// its address, so that it survives every change of the other endpoints and every replica reads it alike. Where a time limit is set, the
// token is followed by when the session began and was last seen: "4f1c9a7be2d30815-t6s3k0-t6s3k4". Nothing depends on its being
// true but where the request goes.
type session struct {
	of       *ir.Affinity       // nil: none
	token    uint64             // 0: the client has none, or one that is over
	endpoint *upstream.Endpoint // that the token names, if it takes requests
	began    int64              // seconds
	seen     int64
}

// readSession reads what the client shows.
func (f *Flow) readSession(a *ir.Affinity) {
	f.session = session{of: a}
	var v []byte
	if a.Header != "" {
		v = f.Request.Header.Get(a.Header)
	} else {
		v = f.Request.Header.Cookie(a.Cookie)
	}
	f.session.parse(v, f.Now.Unix())
}

// parse takes a token apart; one that is malformed or over counts as none.
func (s *session) parse(v []byte, now int64) {
	if len(v) < 16 {
		return
	}
	token, err := strconv.ParseUint(string(v[:16]), 16, 64)
	if err != nil {
		return
	}
	if s.of.Absolute > 0 || s.of.Idle > 0 {
		began, seen, ok := cutTimes(v[16:])
		if !ok || began > now || over(began, s.of.Absolute, now) || over(seen, s.of.Idle, now) {
			return
		}
		s.began, s.seen = began, seen
	} else if len(v) != 16 {
		return
	}
	s.token = token
}

func cutTimes(v []byte) (began, seen int64, ok bool) {
	if len(v) == 0 || len(v) > 32 || v[0] != '-' {
		return 0, 0, false
	}
	for i, c := range v[1:] {
		if c != '-' {
			continue
		}
		b, err := strconv.ParseInt(string(v[1:1+i]), 36, 64)
		s, err2 := strconv.ParseInt(string(v[2+i:]), 36, 64)
		return b, s, err == nil && err2 == nil
	}
	return 0, 0, false
}

func over(since int64, limit ir.Duration, now int64) bool {
	return limit > 0 && time.Duration(now-since)*time.Second >= time.Duration(limit)
}

// resume takes the backend whose endpoint the session names.
func (f *Flow) resume() bool {
	if f.session.token == 0 {
		return false
	}
	r := f.Matched
	for i := range r.Backends {
		b := &r.Backends[i]
		if b.Cluster == nil || b.Weight == 0 {
			continue
		}
		if e := b.Cluster.ByToken(f.session.token, f.Now); e != nil {
			f.backend, f.session.endpoint = b, e
			return true
		}
	}
	return false
}

var nameSetCookie = []byte("Set-Cookie")

// keepSession tells the client where its session is, if that is new or its time has to go on.
func (f *Flow) keepSession() {
	s := &f.session
	if s.of == nil || f.Response.Status == 101 && s.of.Header != "" {
		return
	}
	now := f.Now.Unix()
	moved := s.endpoint != f.Endpoint
	if moved {
		s.began = now
	}
	refresh := s.of.Idle > 0 && time.Duration(now-s.seen)*time.Second >= time.Duration(s.of.Idle)/10
	if !moved && !refresh && s.of.Header == "" {
		return
	}
	if moved || refresh {
		s.seen = now
	}
	n := len(f.scratch)
	if s.of.Header != "" {
		f.scratch = s.append(f.scratch, f.Endpoint.Token())
		f.Response.Header.Set([]byte(s.of.Header), f.scratch[n:])
		return
	}
	f.scratch = append(append(f.scratch, s.of.Cookie...), '=')
	f.scratch = s.append(f.scratch, f.Endpoint.Token())
	f.scratch = append(f.scratch, "; Path=/; HttpOnly; SameSite=Lax"...)
	if f.Scheme == "https" {
		f.scratch = append(f.scratch, "; Secure"...)
	}
	if s.of.MaxAge > 0 {
		f.scratch = append(f.scratch, "; Max-Age="...)
		f.scratch = strconv.AppendInt(f.scratch, max(int64(time.Duration(s.of.MaxAge)/time.Second)-(now-s.began), 1), 10)
	}
	f.Response.Header.Append(nameSetCookie, f.scratch[n:])
}

func (s *session) append(dst []byte, token uint64) []byte {
	const digits = "0123456789abcdef"
	for i := 60; i >= 0; i -= 4 {
		dst = append(dst, digits[token>>i&15])
	}
	if s.of.Absolute > 0 || s.of.Idle > 0 {
		dst = strconv.AppendInt(append(dst, '-'), s.began, 36)
		dst = strconv.AppendInt(append(dst, '-'), s.seen, 36)
	}
	return dst
}
