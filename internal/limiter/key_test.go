package limiter

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestKeyStays: keys lie in stores and ledgers, so they may never change.
func TestKeyStays(t *testing.T) {
	for _, tt := range []struct {
		parts []string
		want  string
	}{
		{nil, "eebfcb0322b1ba743cfaaf375f231f13"}, {[]string{""}, "130ed9511c88e32846808892408ccd0b"}, {[]string{"a", "bc"}, "5452bbd6612e43780e57e3e20b39712e"}, {[]string{strings.Repeat("x", 1000)}, "52c4e582c2df9acc3330313c69f22b16"},
	} {
		var parts [][]byte
		for _, p := range tt.parts {
			parts = append(parts, []byte(p))
		}
		k := KeyOf(SeedOf("shop/limits", "per-client"), parts...)
		if got := hex.EncodeToString(k[:]); got != tt.want {
			t.Errorf("KeyOf(%.10q) = %s, want %s", tt.parts, got, tt.want)
		}
	}
}

func FuzzKeyOf(f *testing.F) {
	f.Add([]byte("ab"), []byte("c"), 1)
	f.Add(bytes.Repeat([]byte("x"), 300), []byte(""), 240)
	f.Fuzz(func(t *testing.T, a, b []byte, cut int) {
		all := append(append([]byte{}, a...), b...)
		cut = max(0, min(cut, len(all)))
		same := cut == len(a)
		if got := KeyOf(Seed{}, a, b) == KeyOf(Seed{}, all[:cut], all[cut:]); got != same {
			t.Errorf("%q cut at %d and %d: same key %v, want %v", all, len(a), cut, got, same)
		}
		if KeyOf(Seed{}, all) == KeyOf(Seed{}, a, b) || KeyOf(Seed{1}, a) == KeyOf(Seed{}, a) {
			t.Error("different parts, one key")
		}
	})
}

func TestParseRedisURL(t *testing.T) {
	for _, tt := range []struct {
		url  string
		want Redis
		err  string
	}{
		{"", Redis{}, ""},
		{"redis://cache", Redis{addr: "cache:6379", host: "cache"}, ""},
		{"redis://cache:7000/3", Redis{addr: "cache:7000", host: "cache", db: 3}, ""},
		{"rediss://gate:s%40crt@[2001:db8::1]:7000/", Redis{addr: "[2001:db8::1]:7000", host: "2001:db8::1", username: "gate", password: "s@crt", tls: true}, ""},
		{"redis://:s3crt@cache", Redis{addr: "cache:6379", host: "cache", password: "s3crt"}, ""},
		{"http://cache", Redis{}, `has the scheme "http"`},
		{"cache:6379", Redis{}, `has the scheme "cache"`},
		{"redis://", Redis{}, "names no host"},
		{"redis://cache:0", Redis{}, `has the port "0"`},
		{"redis://cache:x", Redis{}, "cannot be read"},
		{"redis://cache/x", Redis{}, `has the database "x"`},
		{"redis://cache/-1", Redis{}, `has the database "-1"`},
		{"redis://cache?db=1", Redis{}, "something after its path"},
		{"redis://u:s3crt%zz@cache", Redis{}, "percent-encoded"},
		{"redis://u:s3crt@cache:99999", Redis{}, `has the port "99999"`},
	} {
		got, err := ParseRedisURL(tt.url)
		if err != nil && (tt.err == "" || !strings.Contains(err.Error(), tt.err)) || err == nil && tt.err != "" {
			t.Errorf("ParseRedisURL(%q) = %v, want an error with %q", tt.url, err, tt.err)
		}
		if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(Redis{})); d != "" {
			t.Errorf("ParseRedisURL(%q) (-want +got):\n%s", tt.url, d)
		}
		if s := fmt.Sprintf("%v %+v %#v %v", got, got, got, err); strings.Contains(s, "s3crt") || strings.Contains(s, "s@crt") {
			t.Errorf("ParseRedisURL(%q) shows the password: %s", tt.url, s)
		}
	}
}

func FuzzParseRedisURL(f *testing.F) {
	for _, s := range []string{"redis://u:p@h:1/2", "rediss://[::1]", "redis://", "redis://h?x", "redis://u:%@h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRedisURL(s)
		if err != nil && r != (Redis{}) || err == nil && s != "" && !r.set() {
			t.Errorf("ParseRedisURL(%q) = %v, %v", s, r, err)
		}
		if err == nil && s != "" {
			if again, err := ParseRedisURL(r.String()); err != nil || again.addr != r.addr || again.db != r.db || again.tls != r.tls {
				t.Errorf("%q prints as %q, which is %v, %v", s, r, again, err)
			}
		}
	})
}
