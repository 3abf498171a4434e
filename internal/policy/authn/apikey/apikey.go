// Package apikey accepts API keys: those that Gatehouse issued, and those in users' Secrets. It compares hashes alone, and refuses what
// cannot be a key before it looks anything up.
package apikey

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// maxKey is the longest key that is looked at.
const maxKey = 1024

// Refs lists the Secrets that a method names.
func Refs(s *v1alpha1.APIKeyAuth) []policy.Ref {
	var out []policy.Ref
	for i, r := range s.SecretRefs {
		out = append(out, policy.Ref{Path: refPath(i), Kind: "Secret", Name: r.Name})
	}
	return out
}

func refPath(i int) string { return fmt.Sprintf("secretRefs[%d]", i) }

// Compile checks the method.
func Compile(name string, s *v1alpha1.APIKeyAuth, env policy.Env) (method.Handler, error) {
	source, err := method.NewSource(s.From, []v1alpha1.CredentialSource{{Header: "X-API-Key"}})
	if err != nil {
		return method.Handler{}, err
	}
	k := &keys{name: name, source: source, environments: s.Environments}
	for i := range s.SecretRefs {
		at := refPath(i)
		u := &users{method: name, material: method.NewMaterial(env, at)}
		if parts := strings.Split(u.material.Handle, "/"); len(parts) == 3 { // Secret/namespace/name
			u.namespace = parts[1] + "/"
		}
		k.users = append(k.users, u)
	}
	k.wanted = s.Issued == nil && len(s.SecretRefs) == 0 || s.Issued != nil && *s.Issued
	if env.Keys != nil && k.wanted {
		k.issued = env.Keys.Open()
	}
	h := method.Handler{Authenticate: k.authenticate, Challenge: `ApiKey realm="` + name + `"`, QuerySecrets: source.Query()}
	if s.Strip == nil || *s.Strip {
		h.Admit = source.Strip
	}
	return h, nil
}

// keys is a compiled method.
type keys struct {
	name         string
	source       *method.Source
	users        []*users
	wanted       bool        // issued keys are accepted
	issued       policy.Keys // nil: where a request is only explained
	environments []string
}

func (k *keys) authenticate(x *exchange.Exchange) method.Outcome {
	text, twice := k.source.Find(x)
	switch {
	case twice:
		return method.Refuse("credential_repeated", "several keys in one place")
	case text == nil:
		return method.Outcome{}
	case len(text) > maxKey:
		return method.Refuse("key_malformed", "longer than any key")
	}
	if bytes.HasPrefix(text, issuedPrefix) {
		if _, env, ok := secret.ParseIssued(text); !ok {
			return method.Refuse("key_malformed", "not a whole key that Gatehouse issued")
		} else if k.wanted && k.accepts(env) {
			if k.issued == nil {
				return method.Outcome{State: method.Waiting, Asks: "the database of issued keys", Wait: nowhere}
			}
			if o := k.lookup(text, x); o.State != method.Absent {
				return o
			}
		}
	}
	if len(k.users) > 0 {
		hash := secret.HashOf(text)
		for _, u := range k.users {
			if id, ok := u.lookup(&hash); ok {
				return method.Outcome{State: method.Accepted, Identity: id}
			}
		}
	}
	return method.Refuse("key_unknown", "")
}

// nowhere is asked where there is no database of keys: nothing is known of the key.
func nowhere(context.Context) func(*exchange.Exchange) method.Outcome {
	return func(*exchange.Exchange) method.Outcome {
		return method.Outcome{State: method.Unavailable, Reason: "keys_unavailable", Detail: "there is no database of issued keys"}
	}
}

// issuedPrefix begins every key that Gatehouse issues. A user's own key may not begin like that.
var issuedPrefix = []byte("gh_")

// lookup finds an issued key; Absent: there is none.
func (k *keys) lookup(text []byte, x *exchange.Exchange) method.Outcome {
	hash := secret.HashOf(text)
	kept, _ := x.Keep(hash[:]) // what is handed to an interface would be allocated
	found, ok := k.issued.Lookup((*[sha256.Size]byte)(kept), x.Start)
	switch {
	case ok:
		return method.Outcome{State: method.Accepted, Identity: exchange.Identity{Subject: found.Application, Application: found.Application,
			CredentialID: found.ID, Scopes: found.Scopes, Method: k.name}}
	case !k.issued.Ready():
		return method.Outcome{State: method.Unavailable, Reason: "keys_unavailable", Detail: "the issued keys have not been read yet"}
	}
	return method.Outcome{}
}

// accepts reports whether keys of an environment are accepted.
func (k *keys) accepts(env []byte) bool {
	for _, e := range k.environments {
		if e == string(env) {
			return true
		}
	}
	return len(k.environments) == 0
}

// users are the keys of one Secret. They are indexed anew when the Secret's material is another.
type users struct {
	method, namespace string
	material          method.Material
	index             atomic.Pointer[index]
}

// index finds an identity by the hash of a key.
type index struct {
	of   *secret.Material
	keys map[[sha256.Size]byte]exchange.Identity
}

func (u *users) lookup(hash *[sha256.Size]byte) (exchange.Identity, bool) {
	m := u.material.Now()
	if m == nil {
		return exchange.Identity{}, false
	}
	i := u.index.Load()
	if i == nil || i.of != m {
		i = u.read(m)
		u.index.Store(i)
	}
	id, ok := i.keys[*hash]
	return id, ok
}

// read indexes a Secret: an application's name, and its key or the SHA-256 of it. An entry that is neither is no key; of two applications
// with one key the first by name has it.
func (u *users) read(m *secret.Material) *index {
	i := &index{of: m, keys: make(map[[sha256.Size]byte]exchange.Identity, len(m.Data))}
	for _, application := range slices.Sorted(maps.Keys(m.Data)) {
		v := m.Data[application]
		value := strings.TrimSpace(string(v.Reveal()))
		var hash [sha256.Size]byte
		if digest, ok := strings.CutPrefix(value, "sha256:"); ok {
			b, err := hex.DecodeString(digest)
			if err != nil || len(b) != len(hash) {
				continue
			}
			copy(hash[:], b)
		} else if value == "" {
			continue
		} else {
			hash = secret.HashOf([]byte(value))
		}
		if _, taken := i.keys[hash]; taken {
			continue
		}
		full := u.namespace + application
		i.keys[hash] = exchange.Identity{Subject: full, Application: full, CredentialID: u.material.Handle + "/" + application, Method: u.method}
	}
	return i
}
