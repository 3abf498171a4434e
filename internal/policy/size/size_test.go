package size

import (
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/google/go-cmp/cmp"
)

func compile(spec string) (policy.Handler, error) {
	s := Step()
	d, err := s.Decode([]byte(spec))
	if err != nil {
		return policy.Handler{}, err
	}
	return d.Compile(policy.Env{})
}

func must(t *testing.T, spec string) policy.Handler {
	t.Helper()
	h, err := compile(spec)
	if err != nil {
		t.Fatalf("Compile(%s) = %v", spec, err)
	}
	return h
}

func TestAnnouncedLength(t *testing.T) {
	h := must(t, `{"requestBody":"1Ki","responseBody":"2Ki"}`)
	for _, tt := range []struct{ length, want int64 }{{0, 0}, {1023, 0}, {1024, 0}, {1025, 413}, {exchange.Unknown, 0}} {
		x := &exchange.Exchange{}
		x.Request.ContentLength = tt.length
		if v := h.Request(x); int64(v.Status) != tt.want || (v.Reason == "body_too_large") != (tt.want != 0) {
			t.Errorf("a request of %d bytes: %v, want %d", tt.length, v, tt.want)
		}
		h.Done(x)
	}
	for _, tt := range []struct {
		name   string
		length int64
		change func(*exchange.Exchange)
		want   int
	}{
		{"at the limit", 2048, nil, 0},
		{"over the limit", 2049, nil, 502},
		{"not announced", exchange.Unknown, nil, 0},
		{"to HEAD", 2049, func(x *exchange.Exchange) { x.Request.Method = []byte("HEAD") }, 0},
		{"304", 2049, func(x *exchange.Exchange) { x.Response.Status = 304 }, 0},
		{"the edge's own", 2049, func(x *exchange.Exchange) { x.Response.Edge = true }, 0},
	} {
		x := &exchange.Exchange{}
		x.Request.Method, x.Response.Status, x.Response.ContentLength = []byte("GET"), 200, tt.length
		if tt.change != nil {
			tt.change(x)
		}
		if v := h.Response(x); v.Status != tt.want || (v.Reason == "response_too_large") != (tt.want != 0) {
			t.Errorf("a response %s: %v, want %d", tt.name, v, tt.want)
		}
	}
}

func TestStream(t *testing.T) {
	for _, spec := range []string{`{"requestBody":10,"responseBody":"10"}`, `{"requestBody":"10"}`, `{"responseBody":10}`} {
		h := must(t, spec)
		if !h.KeepsLength {
			t.Errorf("%s: KeepsLength is false, want true", spec)
		}
		x := &exchange.Exchange{}
		for range 2 { // the second exchange begins at 0 again
			x.Reset()
			x.Enter(0)
			x.Request.ContentLength = exchange.Unknown
			if h.Request != nil {
				h.Request(x)
			}
			for _, p := range []string{"1234", "56789", "0", ""} { // the directions take turns
				for _, data := range []func(*exchange.Exchange, []byte, bool) ([]byte, policy.Verdict){h.RequestData, h.ResponseData} {
					if data == nil {
						continue
					}
					if out, v := data(x, []byte(p), p == ""); string(out) != p || v.Status != 0 {
						t.Errorf("%s: %q within the limit is %q, %v", spec, p, out, v)
					}
				}
			}
			if h.RequestData != nil {
				if _, v := h.RequestData(x, []byte("x"), true); v.Status != 413 || v.Reason != "body_too_large" {
					t.Errorf("%s: the eleventh byte of the request: %v, want 413", spec, v)
				}
			}
			if h.ResponseData != nil {
				if _, v := h.ResponseData(x, []byte("x"), true); v.Status != 502 || v.Reason != "response_too_large" {
					t.Errorf("%s: the eleventh byte of the response: %v, want 502", spec, v)
				}
				x.Response.Edge = true
				if _, v := h.ResponseData(x, []byte("the edge's own page"), true); v.Status != 0 {
					t.Errorf("%s: the edge's own page: %v", spec, v)
				}
			}
			if h.Done != nil {
				h.Done(x)
			}
		}
	}
}

func TestMerge(t *testing.T) {
	q := func(s string) *Quantity { v := Quantity(s); return &v }
	outer, inner := &Spec{RequestBody: q("1"), ResponseBody: q("2")}, &Spec{ResponseBody: q("3")}
	got, _ := Step().Merge([]policy.Layer{{Spec: outer}, {Spec: inner}})
	if d := cmp.Diff(&Spec{RequestBody: q("1"), ResponseBody: q("3")}, got); d != "" {
		t.Errorf("Merge (-want +got):\n%s", d)
	}
	if *outer.ResponseBody != "2" || inner.RequestBody != nil {
		t.Errorf("Merge changed what it was given: %+v, %+v", outer, inner)
	}
}

func TestFaults(t *testing.T) {
	const hint = " (write bytes, or 64Ki, 10Mi, 1Gi)"
	for spec, want := range map[string]string{
		`{"requestBody":"big"}`:                    `requestBody: "big" is not a size` + hint,
		`{"requestBody":"-1"}`:                     `requestBody: "-1" is not a whole number of bytes` + hint,
		`{"requestBody":"","responseBody":"1.5"}`:  `requestBody: "" is not a size` + hint + "\n" + `responseBody: "1.5" is not a whole number of bytes` + hint,
		`{"responseBody":"99999999999999999999E"}`: `responseBody: "99999999999999999999E" is not a whole number of bytes` + hint,
	} {
		if _, err := compile(spec); err == nil || err.Error() != want {
			t.Errorf("Compile(%s) = %v, want %s", spec, err, want)
		}
	}
}

func TestAllocates(t *testing.T) {
	h := must(t, `{"requestBody":"1Mi","responseBody":"1Mi"}`)
	x := &exchange.Exchange{}
	p := []byte("12345678")
	if n := testing.AllocsPerRun(1000, func() {
		x.Reset()
		x.Enter(0)
		h.Request(x)
		h.RequestData(x, p, true)
		h.Response(x)
		h.ResponseData(x, p, true)
		h.Done(x)
	}); n > 0.1 { // the pool gives its room to the collector now and then
		t.Errorf("the hooks make %v allocations, want 0", n)
	}
}

// In shadow mode every byte goes on, and what would have been refused is told once; Disabled is no step at all.
func TestShadow(t *testing.T) {
	h := must(t, `{"requestBody":"4","responseBody":"4","mode":"Shadow"}`)
	x := &exchange.Exchange{}
	x.Request.ContentLength, x.Response.ContentLength = 9, exchange.Unknown
	if v := h.Request(x); v.Status != 413 || !v.Shadow {
		t.Errorf("a request of 9 bytes: %v, want 413 in shadow", v)
	}
	told := 0
	for _, p := range []string{"123", "456", "789"} {
		if out, v := h.RequestData(x, []byte(p), false); string(out) != p || v.Status != 0 {
			t.Errorf("request %q goes on as %q, %v: the head has told it", p, out, v)
		}
		out, v := h.ResponseData(x, []byte(p), false)
		if string(out) != p || v.Status != 0 && !v.Shadow {
			t.Errorf("response %q goes on as %q, %v", p, out, v)
		}
		if v.Shadow {
			told++
		}
	}
	if told != 1 {
		t.Errorf("a response over the limit is told %d times, want once", told)
	}
	if h := must(t, `{"requestBody":"4","mode":"Disabled"}`); h.Request != nil || h.RequestData != nil {
		t.Error("a disabled limit has hooks")
	}
	if _, err := compile(`{"requestBody":"4","mode":"Off"}`); err == nil {
		t.Error("mode Off is taken")
	}
}
