package hsts

import (
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

func TestHSTS(t *testing.T) {
	for _, tt := range []struct {
		spec    string
		tls     bool
		backend string
		want    string
	}{
		{`{"maxAge":"8760h"}`, true, "", "max-age=31536000"},
		{`{"maxAge":"1h","includeSubDomains":true}`, true, "max-age=1", "max-age=3600; includeSubDomains"},
		{`{"maxAge":"0s"}`, true, "", "max-age=0"},
		{`{"maxAge":"8760h"}`, false, "", ""},
	} {
		step := Step()
		s, err := step.Decode([]byte(tt.spec))
		if err != nil {
			t.Fatal(err)
		}
		h, err := s.Compile(policy.Env{})
		if err != nil {
			t.Fatalf("Compile(%s) = %v", tt.spec, err)
		}
		x := &exchange.Exchange{TLS: tt.tls}
		if tt.backend != "" {
			x.Response.Header.Append([]byte("strict-transport-security"), []byte(tt.backend))
		}
		h.Response(x)
		if got := string(x.Response.Header.Get("Strict-Transport-Security")); got != tt.want || x.Response.Header.Len() > 1 {
			t.Errorf("%s with TLS %v: %q of %d fields, want %q", tt.spec, tt.tls, got, x.Response.Header.Len(), tt.want)
		}
		if n := testing.AllocsPerRun(100, func() { h.Response(x) }); n != 0 {
			t.Errorf("%s: the hook makes %v allocations, want 0", tt.spec, n)
		}
		if f := step.Facts(s); len(f) != 1 || tt.want != "" && f[0].Value != tt.want {
			t.Errorf("Facts(%s) = %v", tt.spec, f)
		}
	}
	_, err := (&Spec{MaxAge: "1 year"}).Compile(policy.Env{})
	if want := `maxAge: "1 year" is not a duration (write 8760h for a year)`; err == nil || err.Error() != want {
		t.Errorf("Compile = %v, want %s", err, want)
	}
}
