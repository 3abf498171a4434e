package token

import "time"

// Issuer is who signs tokens: which of them are accepted, and where the keys are.
type Issuer struct {
	Rules
	Set *Set
}

// Verify judges a token of the issuer at the time now. The claims are those of j. A token whose key is not known is worth a look for newer
// keys: then gate is not nil, and after Wait the caller calls Verify again, with ask false. A nil fault accepts, and keys are those that
// the signature was checked with; claims may be believed then and not before. The fault Unavailable says that nothing can be said: 503.
//
// What is cheap to see comes before the signature, so that expired tokens cost no cryptography.
func (i *Issuer) Verify(j *JWS, claims map[string]any, now time.Time, ask bool) (keys *Keys, f *Fault, gate <-chan struct{}) {
	if f := i.Check(j, claims, now); f != nil {
		return nil, f, nil
	}
	keys = i.Set.Keys()
	if keys == nil {
		f = fault(Unavailable, "no keys yet: %s", i.Set.Why())
	} else if f = keys.Verify(j, i.Algorithms); f == nil || f.Reason != KeyUnknown {
		return keys, f, nil
	}
	if ask {
		gate = i.Set.Refresh(now)
	}
	return nil, f, gate
}
