package secret_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// fixed is a key written down, so that its form cannot change unseen.
const fixed = "gh_live_0123456789ab_0123456789ABCDEFGHIJKLMNOPQRSTUV_"

func issue(t testing.TB, env string) secret.Issued {
	t.Helper()
	k, err := secret.NewIssued(env, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestIssuedHasItsForm(t *testing.T) {
	form := regexp.MustCompile(`^gh_[a-z0-9]{1,16}_[0-9a-hjkmnp-tv-z]{12}_[0-9A-Za-z]{32}_[0-9A-Za-z]{6}$`)
	for _, env := range []string{"live", "test", "a", "0", "abcdefghij012345"} {
		k := issue(t, env)
		text := string(k.Reveal())
		if !form.MatchString(text) {
			t.Errorf("key of %q = %s", env, text)
		}
		id, e, ok := secret.ParseIssued(k.Reveal())
		if !ok || string(id) != k.ID() || string(e) != env || k.Env() != env || !secret.CheckID(k.ID()) {
			t.Errorf("ParseIssued(%s) = %s, %s, %v", text, id, e, ok)
		}
		if k.Prefix() != "gh_"+env+"_"+k.ID() || !strings.HasSuffix(text, k.LastFour()) || len(k.LastFour()) != 4 {
			t.Errorf("prefix %s, last four %s of %s", k.Prefix(), k.LastFour(), text)
		}
		if k.Hash() != sha256.Sum256([]byte(text)) || k.Hash() != secret.HashOf([]byte(text)) {
			t.Errorf("hash of %s is not its SHA-256", text)
		}
	}
	var zero secret.Issued
	if got := zero.Env() + zero.ID() + zero.Prefix() + zero.LastFour() + string(zero.Reveal()); got != "" {
		t.Errorf("the zero key has parts: %q", got)
	}
}

func TestIssuedRefusesEnvironments(t *testing.T) {
	for _, env := range []string{"", "Live", "li_ve", "lïve", "abcdefghij0123456", "a b"} {
		if _, err := secret.NewIssued(env, rand.Reader); err == nil || !strings.Contains(err.Error(), "such as live") {
			t.Errorf("NewIssued(%q): %v", env, err)
		}
	}
}

// same gives one byte for ever.
type same byte

func (s same) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(s)
	}
	return len(p), nil
}

func TestIssuedNeedsRandomness(t *testing.T) {
	broken := errors.New("no entropy")
	if _, err := secret.NewIssued("live", iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("with a broken source: %v", err)
	}
	if _, err := secret.NewIssued("live", same(255)); err == nil {
		t.Error("a source that gives only what is thrown away made a key")
	}
}

// Each letter is as likely as the others: over 32,000 letters none is off by a third.
func TestIssuedLettersAreEven(t *testing.T) {
	counts := map[byte]int{}
	for range 1000 {
		b := issue(t, "live").Reveal()
		for _, c := range b[len("gh_live_")+13 : len(b)-7] {
			counts[c]++
		}
	}
	for c, n := range counts {
		if want := 32000 / 62; len(counts) != 62 || n < want*2/3 || n > want*4/3 {
			t.Errorf("%d letters, %c %d times, want about %d", len(counts), c, n, want)
		}
	}
}

func TestParseIssuedRefuses(t *testing.T) {
	good := string(issue(t, "live").Reveal())
	for name, b := range map[string]string{
		"empty": "", "prefix only": "gh_live_", "other prefix": "gx" + good[2:], "upper-case prefix": "GH" + good[2:],
		"no environment": "gh_" + good[7:], "long environment": "gh_abcdefghij0123456" + good[7:], "space before": " " + good,
		"newline behind": good + "\n", "short": good[:len(good)-1], "long": good + "0", "fixed with a wrong checksum": fixed + "000000",
		"not text": "gh_live_" + strings.Repeat("\x00", 53), "very long": strings.Repeat(good, 1000),
	} {
		if id, env, ok := secret.ParseIssued([]byte(b)); ok || id != nil || env != nil {
			t.Errorf("%s: ParseIssued = %q, %q, %v", name, id, env, ok)
		}
	}
	// The checksum sees each single wrong character.
	for i := range len(good) {
		for _, c := range []byte("aZ0_-\x00\xff") {
			if c == good[i] {
				continue
			}
			b := []byte(good)
			b[i] = c
			if _, _, ok := secret.ParseIssued(b); ok {
				t.Fatalf("%s with %q at %d is taken", good, c, i)
			}
		}
	}
}

// The checksum was computed by another implementation of CRC-32 (zlib's).
func TestParseIssuedFixed(t *testing.T) {
	id, env, ok := secret.ParseIssued([]byte(fixed + "4csdK4"))
	if !ok || string(id) != "0123456789ab" || string(env) != "live" {
		t.Errorf("ParseIssued = %s, %s, %v", id, env, ok)
	}
}

func TestIssuedProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		env := rapid.StringMatching(`[a-z0-9]{1,16}`).Draw(t, "env")
		seed := rapid.SliceOfN(rapid.Byte(), 256, 256).Draw(t, "seed")
		k, err := secret.NewIssued(env, bytes.NewReader(seed))
		if err != nil {
			return // the seed had too few letters
		}
		if id, e, ok := secret.ParseIssued(k.Reveal()); !ok || string(e) != env || string(id) != k.ID() {
			t.Fatalf("ParseIssued(%s) = %s, %s, %v", k.Reveal(), id, e, ok)
		}
	})
}

func TestParseIssuedAllocations(t *testing.T) {
	good := issue(t, "live").Reveal()
	bad := bytes.Clone(good)
	bad[20] ^= 1
	if n := testing.AllocsPerRun(100, func() {
		secret.ParseIssued(good)
		secret.ParseIssued(bad)
		secret.HashOf(good)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// hiddenKey has a field whose methods fmt may not call.
type hiddenKey struct{ k secret.Issued }

func TestIssuedNeverPrints(t *testing.T) {
	k := issue(t, "live")
	_, hidden, _ := strings.Cut(string(k.Reveal()), k.ID()+"_")
	leaks := func(text string) bool {
		return strings.Contains(text, hidden) || strings.Contains(text, fmt.Sprintf("%x", hidden)) ||
			strings.Contains(text, strings.Trim(fmt.Sprint([]byte(hidden)), "[]"))
	}
	var log bytes.Buffer
	for name, v := range map[string]any{"key": k, "pointer": &k, "slice": []secret.Issued{k}, "unexported": hiddenKey{k},
		"pointer to unexported": &hiddenKey{k}, "map": map[string]any{"k": k}} {
		for _, verb := range strings.Split("v,+v,#v,s,q,x,X,d,o,b,c,U,e,t,T,-30s,.3s,# x", ",") {
			if got := fmt.Sprintf("%"+verb, v); leaks(got) {
				t.Errorf("%s with %%%s prints the key: %s", name, verb, got)
			}
		}
		got, err := json.Marshal(v)
		if err != nil || leaks(string(got)) {
			t.Errorf("json of %s = %s, %v", name, got, err)
		}
		slog.New(slog.NewTextHandler(&log, nil)).Info("have", "it", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("have", "it", v)
	}
	if leaks(log.String()) {
		t.Errorf("the log holds the key:\n%s", log.String())
	}
	if got := fmt.Sprintf("%v %s %x", k, k, k); got != "[redacted] [redacted] [redacted]" {
		t.Errorf("printed %q", got)
	}
}

func FuzzParseIssued(f *testing.F) {
	k := issue(f, "live")
	f.Add(k.Reveal())
	f.Add([]byte(fixed + "000000"))
	f.Add([]byte("gh_live_"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		id, env, ok := secret.ParseIssued(b)
		if !bytes.Equal(before, b) {
			t.Fatal("the text was changed")
		}
		if !ok {
			if id != nil || env != nil {
				t.Fatalf("refused, but with parts %q, %q", id, env)
			}
			return
		}
		if !bytes.HasPrefix(b, []byte("gh_"+string(env)+"_"+string(id)+"_")) || secret.CheckEnv(string(env)) != nil || !secret.CheckID(string(id)) {
			t.Fatalf("ParseIssued(%q) = %q, %q", b, id, env)
		}
		for i := range b {
			b[i] ^= 0x80
			if _, _, ok := secret.ParseIssued(b); ok {
				t.Fatalf("taken with a changed byte %d", i)
			}
			b[i] ^= 0x80
		}
	})
}

func BenchmarkParseIssued(b *testing.B) {
	k := issue(b, "live").Reveal()
	for b.Loop() {
		secret.ParseIssued(k)
	}
}
