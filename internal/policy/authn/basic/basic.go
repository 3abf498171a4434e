// Package basic accepts user names and passwords (RFC 7617) against the htpasswd lines of a Secret. It hashes where waiting is allowed,
// never on the exchange's owner, a bounded number of passwords at a time; a user that is not there costs as much as one that is. It
// never keeps a password: what it remembers of one that was right is a keyed digest.
//
// Bounds: a user name has at most 256 bytes, a password 1024 (72 for bcrypt: longer ones are refused, not cut), bcrypt a cost of 14 at
// most, argon2id 64 MiB, 10 passes and 4 lanes; 8 hashes at once and 256 that wait for their turn, in the whole process.
package basic

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

const (
	maxUser     = 256
	maxPassword = 1024
	// maxCredential is the base64 of the longest user and password, with the colon.
	maxCredential = (maxUser + 1 + maxPassword + 2) / 3 * 4
)

// refSecret is the field that names the Secret.
const refSecret = "secretRef"

// Refs lists the Secret that a method names.
func Refs(s *v1alpha1.BasicAuth) []policy.Ref {
	return []policy.Ref{{Path: refSecret, Kind: "Secret", Name: s.SecretRef.Name}}
}

// Compile checks the method. What is wrong in the Secret cannot be found here, since secrets are swapped beside: a line that cannot be
// used never matches.
func Compile(name string, s *v1alpha1.BasicAuth, env policy.Env) (method.Handler, error) {
	realm := s.Realm
	if realm == "" {
		realm = name
	}
	var faults []error
	if s.SecretRef.Name == "" {
		faults = append(faults, &diag.Problem{Path: refSecret + ".name", Msg: "is empty", Hint: "name the Secret that holds the htpasswd lines"})
	}
	if !isRealm(realm) {
		faults = append(faults, &diag.Problem{Path: "realm", Msg: fmt.Sprintf("%q cannot stand in a header", s.Realm), Hint: "write letters, digits and spaces of ASCII"})
	}
	if len(faults) > 0 {
		return method.Handler{}, errors.Join(faults...)
	}
	source, err := method.NewSource(nil, []v1alpha1.CredentialSource{{Header: "Authorization", Scheme: "Basic"}})
	if err != nil {
		return method.Handler{}, err
	}
	b := &basic{source: source, gate: policy.Open(env, "authn/basic", openGate),
		users: &users{method: name, secret: method.NewMaterial(env, refSecret)}}
	h := method.Handler{Authenticate: b.authenticate,
		Challenge: `Basic realm="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(realm) + `", charset="UTF-8"`}
	if s.Strip == nil || *s.Strip {
		h.Admit = source.Strip
	}
	return h, nil
}

// isRealm reports whether a text can stand between quotes (RFC 9110 section 5.6.4).
func isRealm(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// basic is a compiled method.
type basic struct {
	source *method.Source
	gate   *gate
	users  *users
}

func (b *basic) authenticate(x *exchange.Exchange) method.Outcome {
	text, twice := b.source.Find(x)
	switch {
	case twice:
		return method.Refuse("credential_repeated", "several Basic credentials")
	case text == nil:
		return method.Outcome{}
	case len(text) > maxCredential:
		return malformed("longer than any user and password")
	}
	d := b.gate.desk()
	defer b.gate.leave(d)
	n, err := base64.StdEncoding.Decode(d.room[:], text)
	if err != nil {
		return malformed("not base64")
	}
	user, password, problem := split(d.room[:n])
	if problem != "" {
		return malformed(problem)
	}
	list := b.users.list()
	if list == nil {
		return method.Outcome{State: method.Unavailable, Reason: "users_unavailable", Detail: "the Secret with the users is not there"}
	}
	if list.first == nil {
		return method.Refuse("credentials_invalid", list.problem)
	}
	return b.judge(x, d, list, user, password)
}

func malformed(detail string) method.Outcome { return method.Refuse("credential_malformed", detail) }

// split takes user:password apart; problem says why it is neither (RFC 7617 section 2).
func split(b []byte) (user, password []byte, problem string) {
	colon := -1
	for i, c := range b {
		switch {
		case c < ' ' || c == 0x7f:
			return nil, nil, "a control character in it"
		case c == ':' && colon < 0:
			colon = i
		}
	}
	switch {
	case colon < 0:
		return nil, nil, "no colon in it"
	case colon > maxUser || len(b)-colon-1 > maxPassword:
		return nil, nil, "longer than any user or password"
	}
	return b[:colon], b[colon+1:], ""
}

// judge compares a password: from memory if it was right a moment ago, else where waiting is allowed.
func (b *basic) judge(x *exchange.Exchange, d *desk, list *list, user, password []byte) method.Outcome {
	e, why := list.users[string(user)], "wrong password"
	usable := e != nil && e.kind != unusable
	if !usable {
		why = "no such user"
		if e != nil {
			why = e.problem
		}
		e = list.first // its hash is computed all the same, so that nobody can tell who is a user here
	}
	if e.kind == bcryptHash && len(password) > maxBcrypt {
		return method.Refuse("credentials_invalid", "a password longer than the 72 bytes that bcrypt reads")
	}
	tag := d.tag(user, password, &e.digest)
	now := x.Start.UnixNano()
	if usable && b.gate.seen(&tag, now) {
		return method.Outcome{State: method.Accepted, Identity: e.identity}
	}
	if x.Dry {
		return decide(e, e.matches(password) && usable, why)
	}
	g := &guess{gate: b.gate, entry: e, usable: usable, why: why, password: append([]byte(nil), password...), tag: tag, now: now}
	return method.Outcome{State: method.Waiting, Asks: "nobody: the password is hashed", Wait: g.wait}
}

// guess is a password that waits to be hashed. It is a type of its own so that a remembered one allocates nothing.
type guess struct {
	gate     *gate
	entry    *entry
	usable   bool
	why      string // it is refused, if it is
	password []byte
	tag      [sha256.Size]byte
	now      int64 // when the request began, Unix nanoseconds
}

func (g *guess) wait(ctx context.Context) func(*exchange.Exchange) method.Outcome {
	o := g.gate.hash(ctx, g.compare)
	clear(g.password)
	return func(*exchange.Exchange) method.Outcome { return o }
}

func (g *guess) compare() method.Outcome {
	if g.usable && g.gate.seen(&g.tag, g.now) { // another request with the same password was quicker
		return method.Outcome{State: method.Accepted, Identity: g.entry.identity}
	}
	ok := g.entry.matches(g.password) && g.usable
	if ok {
		g.gate.remember(&g.tag, g.now)
	}
	return decide(g.entry, ok, g.why)
}

// decide says what a comparison means; why is for the log: a caller is never told which of user and password is wrong.
func decide(e *entry, ok bool, why string) method.Outcome {
	if ok {
		return method.Outcome{State: method.Accepted, Identity: e.identity}
	}
	return method.Refuse("credentials_invalid", why)
}
