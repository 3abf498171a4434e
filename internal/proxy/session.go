package proxy

import (
	"strconv"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// session is what an exchange knows of its client's affinity (GEP-1619). A client shows a token that names an endpoint without telling
// its address, so that it survives every change of the other endpoints and every replica reads it alike. Where sessions have an end,
// the token is followed by when this one began: "4f1c9a7be2d30815-t6s3k0". Nothing depends on its being true but where the
// request goes.
type session struct {
	of       *ir.Affinity       // nil: none
	token    uint64             // 0: the client has none, or one that is over
	endpoint *upstream.Endpoint // that the token names, if it takes requests
	began    int64              // seconds
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
	if s.of.Absolute > 0 {
		if len(v) < 18 || len(v) > 32 || v[16] != '-' {
			return
		}
		s.began, err = strconv.ParseInt(string(v[17:]), 36, 64)
		if err != nil || s.began > now || time.Duration(now-s.began)*time.Second >= time.Duration(s.of.Absolute) {
			return
		}
	} else if len(v) != 16 {
		return
	}
	s.token = token
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
	switch {
	case s.endpoint != f.Endpoint: // a new session, or one that had to move
		s.began = now
	case s.of.Header == "":
		return
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
		f.scratch = strconv.AppendInt(f.scratch, int64(time.Duration(s.of.MaxAge)/time.Second), 10)
	}
	f.Response.Header.Append(nameSetCookie, f.scratch[n:])
}

func (s *session) append(dst []byte, token uint64) []byte {
	const digits = "0123456789abcdef"
	for i := 60; i >= 0; i -= 4 {
		dst = append(dst, digits[token>>i&15])
	}
	if s.of.Absolute > 0 {
		dst = strconv.AppendInt(append(dst, '-'), s.began, 36)
	}
	return dst
}
