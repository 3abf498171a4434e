package method

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// Claims reads an identity, and what backends are told, from the claims of a token (RFC 7519 section 4) or the answer of an
// introspection (RFC 7662 section 2.2).
type Claims struct {
	subject, application, scopes [][]string // paths, the first that is there counts
	headers                      []claimHeader
}

type claimHeader struct {
	name []byte
	path []string
}

// NewClaims checks the two fields of a method. Paths of a fault begin with claims or claimsToHeaders.
func NewClaims(names *v1alpha1.ClaimNames, headers []v1alpha1.ClaimToHeader) (*Claims, error) {
	if names == nil {
		names = &v1alpha1.ClaimNames{}
	}
	paths := func(given string, otherwise ...string) (out [][]string) {
		if given != "" {
			otherwise = []string{given}
		}
		for _, p := range otherwise {
			out = append(out, strings.Split(p, "."))
		}
		return out
	}
	c := &Claims{subject: paths(names.Subject, "sub"), application: paths(names.Application, "azp", "client_id"), scopes: paths(names.Scopes, "scope", "scp")}
	var faults []error
	for i, h := range headers {
		at := fmt.Sprintf("claimsToHeaders[%d]", i)
		if h.Claim == "" {
			faults = append(faults, diag.Errorf(at+".claim", "is empty"))
		}
		if err := IdentityField(at+".header", h.Header); err != nil {
			faults = append(faults, err)
		}
		if slices.ContainsFunc(headers[:i], func(o v1alpha1.ClaimToHeader) bool { return strings.EqualFold(o.Header, h.Header) }) {
			faults = append(faults, diag.Errorf(at+".header", "%q stands twice", h.Header))
		}
		c.headers = append(c.headers, claimHeader{[]byte(h.Header), strings.Split(h.Claim, ".")})
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return c, nil
}

// Fields names the header fields that Header may return: Handler.Fields.
func (c *Claims) Fields() []string {
	var out []string
	for _, h := range c.headers {
		out = append(out, string(h.name))
	}
	return out
}

// Identity of the claims. It is new, and shares nothing with them but the claims themselves.
func (c *Claims) Identity(claims map[string]any) exchange.Identity {
	issuer, _ := claims["iss"].(string)
	id, _ := claims["jti"].(string)
	return exchange.Identity{Subject: first(claims, c.subject), Application: first(claims, c.application), Issuer: issuer, CredentialID: id,
		Scopes: scopesOf(claims, c.scopes), Claims: claims}
}

// maxTold is how long what is told of one claim may be, in bytes.
const maxTold = 8 << 10

// Header is what backends are told of the claims: Outcome.Header. A claim that is not there, or that cannot stand in a field as it is, is
// not told: one with white space at its ends would arrive as another text.
func (c *Claims) Header(claims map[string]any) []exchange.Field {
	var out []exchange.Field
	for _, h := range c.headers {
		if v := []byte(text(find(claims, h.path))); len(v) > 0 && len(v) <= maxTold && exchange.IsFieldValue(v) && len(bytes.TrimSpace(v)) == len(v) {
			out = append(out, exchange.Field{Name: h.name, Value: v})
		}
	}
	return out
}

// find goes down the path; nil: there is nothing. A claim whose name has the dots in it comes first.
func find(claims map[string]any, path []string) any {
	if v, ok := claims[strings.Join(path, ".")]; ok {
		return v
	}
	var at any = claims
	for _, p := range path {
		m, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = m[p]
	}
	return at
}

func first(claims map[string]any, paths [][]string) string {
	for _, p := range paths {
		if s, ok := find(claims, p).(string); ok && s != "" {
			return s
		}
	}
	return ""
}

// scopesOf reads a text with spaces (RFC 8693 section 4.2) or a list of texts.
func scopesOf(claims map[string]any, paths [][]string) []string {
	for _, p := range paths {
		switch v := find(claims, p).(type) {
		case string:
			return strings.Fields(v)
		case []any:
			var out []string
			for _, e := range v {
				if s, ok := e.(string); ok && s != "" && !slices.Contains(out, s) {
					out = append(out, s)
				}
			}
			return out
		}
	}
	return nil
}

// text is a claim as the value of a field.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case uint64:
		return strconv.FormatUint(v, 10)
	case float64:
		if math.Abs(v) >= 1<<53 {
			return "" // digits were lost: it may be anybody's number
		}
		return strconv.FormatFloat(v, 'f', -1, 64)
	case json.Number:
		return v.String()
	case []any:
		var out []string
		for _, e := range v {
			if s := text(e); s != "" && !strings.Contains(s, ",") {
				out = append(out, s)
			}
		}
		return strings.Join(out, ",")
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}
