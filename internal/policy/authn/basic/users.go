package basic

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// Bounds of what a line of a Secret can make us spend.
const (
	maxBcrypt     = 72 // bytes of a password that bcrypt reads
	maxBcryptCost = 14 // about a second
	maxMemory     = 64 << 10
	maxPasses     = 10
	maxLanes      = 4
)

// kind of a hash.
type kind uint8

const (
	unusable kind = iota
	bcryptHash
	argon2idHash
)

// entry is one user. It is not changed once made.
type entry struct {
	kind     kind
	problem  string            // why it is unusable
	digest   [sha256.Size]byte // of the whole hash, salt included: what the memory of right passwords is bound to
	identity exchange.Identity

	bcrypt         []byte
	salt, sum      []byte // argon2id
	memory, passes uint32 // KiB, and how often it is gone through
	lanes          uint8
}

// matches computes the hash of a password, which is slow by intent, and compares it in constant time.
func (e *entry) matches(password []byte) bool {
	switch e.kind {
	case bcryptHash:
		return bcrypt.CompareHashAndPassword(e.bcrypt, password) == nil
	case argon2idHash:
		got := argon2.IDKey(password, e.salt, e.passes, e.memory, e.lanes, uint32(len(e.sum))) //nolint:gosec // at most 64
		return subtle.ConstantTimeCompare(got, e.sum) == 1
	}
	return false
}

// list is the users of one version of a Secret.
type list struct {
	of      *secret.Material
	users   map[string]*entry
	first   *entry // with a usable hash: what is computed for users that are not there; nil: none
	problem string // why there is no first
}

// users are the lines of a Secret, read anew when its material is another.
type users struct {
	method string
	secret method.Material
	read   atomic.Pointer[list]
}

// list returns the users, nil when the Secret is not there.
func (u *users) list() *list {
	m := u.secret.Now()
	if m == nil {
		return nil
	}
	l := u.read.Load()
	if l == nil || l.of != m {
		l = u.parse(m)
		u.read.Store(l)
	}
	return l
}

// parse reads htpasswd lines; of two for one user the first counts, as in Apache's httpd.
func (u *users) parse(m *secret.Material) *list {
	l := &list{of: m, users: map[string]*entry{}, problem: "no line of the Secret has a bcrypt or argon2id hash"}
	text, ok := m.Data["auth"]
	if !ok && len(m.Data) == 1 {
		for _, only := range m.Data {
			text, ok = only, true
		}
	}
	if !ok {
		l.problem = "the Secret has no key auth, and not exactly one other"
		return l
	}
	for line := range bytes.Lines(text.Reveal()) {
		line = bytes.TrimSpace(line)
		user, rest, found := bytes.Cut(line, []byte(":"))
		if !found || len(user) == 0 || len(user) > maxUser || user[0] == '#' {
			continue
		}
		if _, twice := l.users[string(user)]; twice {
			continue
		}
		hash, _, _ := bytes.Cut(rest, []byte(":")) // some tools write a comment behind it
		e := newEntry(string(hash))
		e.identity = exchange.Identity{Subject: string(user), CredentialID: u.secret.Handle + "/" + string(user), Method: u.method}
		l.users[string(user)] = e
		if l.first == nil && e.kind != unusable {
			l.first = e
		}
	}
	return l
}

// newEntry reads one hash. What is not understood, or costs more than we spend, is unusable.
func newEntry(hash string) *entry {
	e := &entry{digest: sha256.Sum256([]byte(hash))}
	switch {
	case strings.HasPrefix(hash, "$2y$"), strings.HasPrefix(hash, "$2a$"), strings.HasPrefix(hash, "$2b$"):
		e.problem = e.readBcrypt(hash)
	case strings.HasPrefix(hash, "$argon2id$"):
		e.problem = e.readArgon2id(hash)
	default:
		e.problem = "the hash is neither bcrypt nor argon2id"
	}
	return e
}

const bcryptLen = 60

func (e *entry) readBcrypt(hash string) (problem string) {
	cost, err := bcrypt.Cost([]byte(hash))
	switch {
	case err != nil || len(hash) != bcryptLen || strings.Trim(hash[7:], bcryptAlphabet) != "":
		return "the bcrypt hash is malformed"
	case cost > maxBcryptCost:
		return "the bcrypt hash costs more than 14"
	}
	e.kind, e.bcrypt = bcryptHash, []byte(hash)
	return ""
}

const bcryptAlphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// readArgon2id reads $argon2id$v=19$m=65536,t=3,p=4$salt$hash, the form of the reference implementation.
func (e *entry) readArgon2id(hash string) (problem string) {
	const malformed = "the argon2id hash is malformed"
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[2] != "v=19" {
		return malformed
	}
	costs := strings.Split(parts[3], ",")
	if len(costs) != 3 {
		return malformed
	}
	var n [3]uint64
	for i, key := range []string{"m=", "t=", "p="} {
		digits, ok := strings.CutPrefix(costs[i], key)
		v, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil {
			return malformed
		}
		n[i] = v
	}
	memory, passes, lanes := n[0], n[1], n[2]
	switch {
	case memory > maxMemory || passes > maxPasses || lanes > maxLanes:
		return "the argon2id hash costs more than m=65536,t=10,p=4"
	case passes == 0 || lanes == 0 || memory < 8*lanes:
		return malformed
	}
	salt, err := base64.RawStdEncoding.Strict().DecodeString(parts[4])
	sum, err2 := base64.RawStdEncoding.Strict().DecodeString(parts[5])
	if err != nil || err2 != nil || len(salt) < 8 || len(salt) > 64 || len(sum) < 16 || len(sum) > 64 {
		return malformed
	}
	e.kind, e.salt, e.sum = argon2idHash, salt, sum
	e.memory, e.passes, e.lanes = uint32(memory), uint32(passes), uint8(lanes) //nolint:gosec // bounded above
	return ""
}
