// Package hmac accepts requests that are signed with a shared secret: HTTP Message Signatures (RFC 9421) with hmac-sha256, and
// Content-Digest (RFC 9530) over the whole body. What a signature covers is what the client sent, never what the edge made of it. A
// signature that is not understood in every part is refused; nothing of a request is believed before its signature is right.
//
// Bounds: 8 KiB each of Signature-Input, Signature and Content-Digest; 4 signatures are looked at, each of at most 64 components, 8 of
// them with a parameter, and 128 KiB of text to sign; 100,000 nonces of one key are remembered and 400,000 in all, 16 bytes each.
//
// Without a nonce, who sees a signed request can send it again until it is older than maxAge. With one it is accepted once by each process.
package hmac

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

const (
	defaultAge  = 5 * time.Minute
	longestAge  = time.Hour
	ahead       = 30 // seconds that a client's clock may be ahead of ours
	defaultBody = 1 << 20

	maxField      = 8 << 10
	maxSignatures = 4
)

// refSecret is the field that names the Secret.
const refSecret = "secretRef"

// Refs lists the Secret that a method names.
func Refs(s *v1alpha1.HMACAuth) []policy.Ref {
	return []policy.Ref{{Path: refSecret, Kind: "Secret", Name: s.SecretRef.Name}}
}

// Compile checks the method.
func Compile(name string, s *v1alpha1.HMACAuth, env policy.Env) (method.Handler, error) {
	var faults []error
	fault := func(path, msg, hint string) {
		faults = append(faults, &diag.Problem{Path: path, Msg: msg, Hint: hint})
	}
	if s.SecretRef.Name == "" {
		fault(refSecret+".name", "is empty", "name the Secret that holds the shared secrets by key id")
	}
	v := &verifier{age: int64(defaultAge / time.Second), required: []string{`"@method"`, `"@target-uri"`, digestComponent}}
	if s.MaxAge != nil {
		age, err := policy.ParseDuration(string(*s.MaxAge))
		switch {
		case err != nil:
			fault("maxAge", err.Error(), policy.DurationHint)
		case age < time.Second || age > longestAge:
			fault("maxAge", fmt.Sprintf("%s is not between 1s and 1h", *s.MaxAge), "a signature can be sent again for as long: write 5m, or less")
		}
		v.age = int64(age / time.Second)
	}
	body := int64(defaultBody)
	if s.MaxBodyBytes != nil {
		if body = *s.MaxBodyBytes; body < 1 || body > 64<<20 {
			fault("maxBodyBytes", fmt.Sprintf("%d is not between 1 and 67108864", body), "")
		}
	}
	if len(s.Components) > 0 {
		v.required = nil
	}
	for i, c := range s.Components {
		id, problem := requirement(c)
		if problem != "" {
			fault(fmt.Sprintf("components[%d]", i), fmt.Sprintf("%q %s", c, problem), "write @method, @target-uri, content-digest, or another header name in lower case")
		}
		v.required = append(v.required, id)
	}
	if len(faults) > 0 {
		return method.Handler{}, errors.Join(faults...)
	}
	v.keys = &keys{method: name, secret: method.NewMaterial(env, refSecret), dummy: randomKey()}
	v.replays = policy.Open(env, "authn/hmac", openReplays)
	v.replays.until(v.age)
	return method.Handler{Authenticate: v.authenticate, Challenge: `Signature realm="` + name + `"`, Body: body}, nil
}

// verifier is a compiled method.
type verifier struct {
	keys     *keys
	replays  *replays
	required []string // identifiers of components as they are serialised
	age      int64    // seconds
}

func malformed(detail string) method.Outcome { return method.Refuse("signature_malformed", detail) }

// authenticate looks for a signature that is right. Of several that are not, the first says why.
func (v *verifier) authenticate(x *exchange.Exchange) method.Outcome {
	h := &x.Request.Header
	if !h.Has("Signature-Input") {
		return method.Outcome{} // a Signature alone is of another scheme
	}
	inputs, problem := dictionary(h, "Signature-Input")
	if problem != "" {
		return malformed(problem)
	}
	signatures, problem := dictionary(h, "Signature")
	if problem != "" {
		return malformed(problem)
	}
	index := v.keys.index()
	if index == nil {
		return method.Outcome{State: method.Unavailable, Reason: "keys_unavailable", Detail: "the Secret with the keys is not there"}
	}
	var first method.Outcome
	for i, label := range inputs.Names() {
		if i == maxSignatures {
			break
		}
		o := v.one(x, index, inputs, signatures, label)
		if o.State == method.Accepted {
			return o
		}
		if first.State == method.Absent {
			first = o
		}
	}
	return first
}

// dictionary reads a field as a dictionary (RFC 9651 section 3.2); problem says why it is none.
func dictionary(h *exchange.Header, name string) (d *httpsfv.Dictionary, problem string) {
	b, _ := h.Joined(nil, name)
	if len(b) > maxField {
		return nil, name + " is too long"
	}
	d, err := httpsfv.UnmarshalDictionary([]string{string(b)})
	if err != nil || len(d.Names()) == 0 {
		return nil, name + " is not a dictionary, or an empty one"
	}
	return d, ""
}

// one judges one signature (RFC 9421 section 3.2). Nothing that it says depends on which keys there are, but Accepted.
func (v *verifier) one(x *exchange.Exchange, index *index, inputs, signatures *httpsfv.Dictionary, label string) method.Outcome {
	input, _ := inputs.Get(label)
	list, ok := input.(httpsfv.InnerList)
	if !ok {
		return malformed("a member of Signature-Input is not a list of components")
	}
	given, _ := signatures.Get(label)
	item, ok := given.(httpsfv.Item)
	if !ok {
		return malformed("Signature has nothing for a label of Signature-Input")
	}
	sum, ok := item.Value.([]byte)
	if !ok || len(sum) != sha256.Size {
		return malformed("a signature is not 32 bytes")
	}
	p, o := v.params(list.Params, x.Start.Unix())
	if o.State != method.Absent {
		return o
	}
	b := base{x: x, text: make([]byte, 0, 1<<10), ids: make([]string, 0, len(list.Items))}
	if o := b.build(&list); o.State != method.Absent {
		return o
	}
	if missing := v.missing(x, b.ids); missing != "" {
		return method.Refuse("signature_insufficient", "it does not cover "+missing)
	}
	k := index.keys[p.key]
	if k == nil {
		k = v.keys.dummy // it is computed all the same, so that nobody can tell which keys there are
	}
	mac := k.sum(b.text)
	if subtle.ConstantTimeCompare(mac[:], sum) != 1 || k == v.keys.dummy {
		return method.Refuse("signature_invalid", "wrong, or of a key that is not there")
	}
	if slices.Contains(b.ids, digestComponent) {
		if o := checkDigest(x); o.State != method.Absent {
			return o
		}
	}
	if p.nonce && !x.Dry {
		if o := v.replays.use(k.identity.CredentialID, &mac, p.created, x.Start.Unix()); o.State != method.Absent {
			return o
		}
	}
	return method.Outcome{State: method.Accepted, Identity: k.identity}
}

// params are those of a signature that we read (RFC 9421 section 2.3).
type params struct {
	key     string
	created int64 // Unix seconds
	nonce   bool
}

// maxText is the longest keyid and nonce.
const maxText = 256

// params checks the parameters of a signature, at the time now in Unix seconds.
func (v *verifier) params(given *httpsfv.Params, now int64) (p params, o method.Outcome) {
	created, ok := given.Get("created")
	if p.created, ok = asInteger(created, ok); !ok {
		return p, malformed("created is missing, or no integer")
	}
	id, _ := given.Get("keyid")
	if p.key, ok = id.(string); !ok || p.key == "" || len(p.key) > maxText {
		return p, malformed("keyid is missing, or no text of up to 256 characters")
	}
	if alg, there := given.Get("alg"); there && alg != "hmac-sha256" {
		return p, method.Refuse("signature_algorithm", "alg is not hmac-sha256")
	}
	if nonce, there := given.Get("nonce"); there {
		if text, ok := nonce.(string); !ok || text == "" || len(text) > maxText {
			return p, malformed("nonce is no text of up to 256 characters")
		}
		p.nonce = true
	}
	if expires, there := given.Get("expires"); there {
		end, ok := asInteger(expires, true)
		if !ok {
			return p, malformed("expires is no integer")
		}
		if now >= end {
			return p, method.Refuse("signature_expired", "its expires is over")
		}
	}
	switch {
	case p.created > now+ahead:
		return p, method.Refuse("signature_not_yet_valid", "created lies in the future")
	case p.created < now-v.age:
		return p, method.Refuse("signature_expired", "older than maxAge")
	}
	return p, method.Outcome{}
}

func asInteger(v any, there bool) (int64, bool) {
	n, ok := v.(int64)
	return n, ok && there
}

// missing is the first component that has to be covered and is not. A request without a body needs no digest.
func (v *verifier) missing(x *exchange.Exchange, covered []string) string {
	for _, id := range v.required {
		if id == digestComponent && x.Request.ContentLength == 0 {
			continue
		}
		if !slices.Contains(covered, id) {
			return id
		}
	}
	return ""
}
