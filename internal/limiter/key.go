package limiter

import (
	"crypto/sha256"
	"encoding/binary"
)

// Key names what is counted together: 128 bits of SHA-256 over the policy, the limit's name and the values of its key. It is
// cryptographic because clients choose the values: who finds two that collide can use up the limit of somebody else.
type Key [16]byte

// Seed is the constant part of keys, as the names of policy and limit, hashed once.
type Seed [16]byte

// SeedOf hashes names. It is the same in all processes and versions.
func SeedOf(names ...string) Seed {
	parts := make([][]byte, len(names))
	for i, n := range names {
		parts[i] = []byte(n)
	}
	return Seed(KeyOf(Seed{}, parts...))
}

// KeyOf hashes seed and parts. Each part counts with its length, so ("a", "bc") and ("ab", "c") differ. It is the same in all
// processes and after restarts, as the store and the ledger hold keys. It allocates nothing.
func KeyOf(seed Seed, parts ...[]byte) Key {
	// What does not fit is hashed in pieces, each behind the digest of those before it. The first byte tells the two forms apart.
	var b [256]byte
	n := 1 + copy(b[1:], seed[:])
	for _, p := range parts {
		if len(b)-n < 8 {
			n = fold(&b, n)
		}
		binary.LittleEndian.PutUint64(b[n:], uint64(len(p)))
		n += 8
		for {
			c := copy(b[n:], p)
			n, p = n+c, p[c:]
			if len(p) == 0 {
				break
			}
			n = fold(&b, n)
		}
	}
	h := sha256.Sum256(b[:n])
	return Key(h[:16])
}

func fold(b *[256]byte, n int) int {
	h := sha256.Sum256(b[:n])
	b[0] = 1
	return 1 + copy(b[1:], h[:])
}

// sub is the key of the entry that holds the rates 2g and 2g+1 of a limit; it lies in the same shard.
func (k Key) sub(g int) Key {
	k[15] ^= byte(g)
	k[14] ^= byte(g >> 8)
	return k
}

func (k *Key) shard() uint64 { return uint64(k[0]) & (shardCount - 1) }
func (k *Key) hash() uint32  { return binary.LittleEndian.Uint32(k[4:]) }
