package hmac

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"

	"github.com/dunglas/httpsfv"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// checkDigest compares Content-Digest with the body (RFC 9530 section 2). Every sha-256 and sha-512 in it has to be right, and one has to
// be there; other algorithms are passed over.
func checkDigest(x *exchange.Exchange) method.Outcome {
	d, problem := dictionary(&x.Request.Header, "Content-Digest")
	if problem != "" {
		return method.Refuse("digest_malformed", problem)
	}
	if !x.Request.Buffered && x.Request.ContentLength != 0 {
		return method.Outcome{State: method.Unavailable, Reason: "body_unavailable", Detail: "the body was not collected"}
	}
	found := false
	for _, name := range d.Names() {
		if name != "sha-256" && name != "sha-512" {
			continue
		}
		m, _ := d.Get(name)
		item, _ := m.(httpsfv.Item)
		want, ok := item.Value.([]byte)
		if !ok {
			return method.Refuse("digest_malformed", name+" is not a byte sequence")
		}
		var got []byte
		if name == "sha-256" {
			sum := sha256.Sum256(x.Request.Body)
			got = sum[:]
		} else {
			sum := sha512.Sum512(x.Request.Body)
			got = sum[:]
		}
		if subtle.ConstantTimeCompare(got, want) != 1 {
			return method.Refuse("digest_mismatch", name+" of Content-Digest is not that of the body")
		}
		found = true
	}
	if !found {
		return method.Refuse("digest_malformed", "Content-Digest has neither sha-256 nor sha-512")
	}
	return method.Outcome{}
}
