package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// document is what a discovery document said.
type document struct {
	keys  string // jwks_uri
	until time.Time
}

// refresh fetches the keys once, and says for how long they are good. Keys that are there stay when it fails.
func (f *fetcher) refresh(w policy.Work) (time.Duration, error) {
	from := f.from
	if f.discover {
		if !w.Now().Before(f.document.until) {
			// What was said last holds while nothing newer can be read, as it does for keys.
			if err := f.discovery(w); err != nil && f.document.keys == "" {
				return 0, err
			}
		}
		from = f.document.keys
	}
	body, age, err := f.ask(w, from)
	var k *Keys
	if err == nil {
		if k, _, err = ParseKeys(body, false); err != nil {
			err = fmt.Errorf("GET %s: the key set %w", from, err)
		}
	}
	if err != nil {
		f.document.until = time.Time{} // perhaps the keys are elsewhere now
		return 0, err
	}
	if old := f.keys.Load(); old == nil || old.digest != k.digest { // the same keys stay the same value: see Cache.Find
		f.keys.Store(k)
	}
	return age, nil
}

// discovery reads where the issuer's keys are. The document has to be about the issuer (RFC 8414 section 3.3), and may not lead from
// https to http.
func (f *fetcher) discovery(w policy.Work) error {
	var faults []error
	for _, at := range wellKnown(f.from) {
		body, age, err := f.ask(w, at)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		whole, keys, err := readDocument(body, f.from)
		if err != nil {
			return fmt.Errorf("GET %s: %w", at, err)
		}
		f.document = document{keys: keys, until: w.Now().Add(age)}
		f.whole.Store(&whole)
		return nil
	}
	return errors.Join(faults...)
}

func readDocument(body []byte, issuer string) (whole map[string]any, keys string, err error) {
	m, f := object(body)
	if f != nil {
		return nil, "", errors.New(f.Detail)
	}
	if got, _ := m["issuer"].(string); got != issuer {
		return nil, "", fmt.Errorf("the document is of the issuer %s, not of %s", quote(got), quote(issuer))
	}
	keys, _ = m["jwks_uri"].(string)
	if err := CheckURL(keys); err != nil {
		return nil, "", fmt.Errorf("jwks_uri: %w", err)
	}
	if secure(issuer) && !secure(keys) {
		return nil, "", errors.New("jwks_uri leads from https to http")
	}
	return m, keys, nil
}

func secure(url string) bool { return strings.HasPrefix(strings.ToLower(url), "https:") }

// ask gets one document.
func (f *fetcher) ask(ctx context.Context, from string) (body []byte, age time.Duration, err error) {
	reply, err := f.call.Call(ctx, &policy.Call{Method: "GET", URL: from, Max: maxSet,
		Header: http.Header{"Accept": {"application/jwk-set+json, application/json"}}})
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("GET %s: %w", from, err)
	case reply.Status != 200:
		return nil, 0, fmt.Errorf("GET %s: status %d, not 200", from, reply.Status)
	case len(reply.Body) > maxSet:
		return nil, 0, fmt.Errorf("GET %s: %w", from, policy.ErrTooLarge)
	}
	return reply.Body, ageOf(reply.Header), nil
}

// ageOf is how long a document may be used (RFC 9111 section 5.2.2), within bounds: a server can have us ask neither all the time nor
// never again.
func ageOf(h http.Header) time.Duration {
	age := defaultAge
	for _, d := range strings.Split(strings.ToLower(strings.Join(h.Values("Cache-Control"), ",")), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(d), "=")
		switch name {
		case "no-store", "no-cache":
			return minAge
		case "max-age":
			n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 32)
			if err == nil {
				age = time.Duration(n) * time.Second
			} else if errors.Is(err, strconv.ErrRange) {
				age = maxAge
			}
		}
	}
	return min(max(age, minAge), maxAge)
}
