package method

import (
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// Material is a reference to secret material that is asked for on every request: its handle is found once.
type Material struct {
	Handle string // "Secret/shop/keys", "" if it was not resolved
	store  policy.SecretStore
}

// NewMaterial is that of the reference at path.
func NewMaterial(env policy.Env, path string) Material {
	return Material{Handle: env.Ref(path), store: env.Secret}
}

// Now is the material as it is now, nil when it is not there. It does not allocate.
func (m *Material) Now() *secret.Material {
	if m.Handle == "" || m.store == nil {
		return nil
	}
	return m.store.Lookup(m.Handle)
}
