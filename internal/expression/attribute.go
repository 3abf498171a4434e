package expression

import (
	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// attribute is one thing that an expression can read. Exactly one of the functions is set. All are total: what is not there reads
// as the zero value.
type attribute struct {
	name string
	// size is how long a value is assumed to be when the worst case is estimated: bytes of a text, elements of a list or map.
	size uint64

	bytes  func(*exchange.Exchange) []byte
	str    func(*exchange.Exchange) string
	header func(*exchange.Exchange) *exchange.Header
	other  func(*exchange.Exchange) ref.Val
}

// Sizes that the estimate assumes. They are what large requests have, not what the limits let through: those who send more can only
// meet the limit at run time.
const (
	sizePath    = 2048
	sizeQuery   = 2048
	sizeHost    = 254
	sizeWord    = 128
	sizeHeaders = 64
	sizeName    = 64
	sizeValue   = 1024
	sizeScopes  = 64
	sizeClaims  = 32
	sizeClaim   = 64 // elements, or bytes times four
)

// typeOf is the type of an attribute for the checker.
func (a *attribute) typeOf() *cel.Type {
	switch {
	case a.header != nil:
		return cel.MapType(cel.StringType, cel.StringType)
	case a.name == identityClaims:
		return cel.MapType(cel.StringType, cel.DynType)
	case a.name == identityScopes:
		return cel.ListType(cel.StringType)
	case a.name == responseStatus:
		return cel.IntType
	}
	return cel.StringType
}

// isMap reports whether the attribute has keys.
func (a *attribute) isMap() bool { return a.header != nil || a.name == identityClaims }

var attributes = []attribute{
	{name: "request.method", size: 16, bytes: func(x *exchange.Exchange) []byte { return x.Request.Method }},
	{name: "request.path", size: sizePath, bytes: clientPath},
	{name: "request.query", size: sizeQuery, bytes: func(x *exchange.Exchange) []byte { return x.Request.Query }},
	{name: "request.host", size: sizeHost, bytes: func(x *exchange.Exchange) []byte { return x.Request.Host }},
	{name: "request.scheme", size: 5, str: func(x *exchange.Exchange) string { return x.Scheme }},
	{name: requestHeaders, size: sizeHeaders,
		header: func(x *exchange.Exchange) *exchange.Header { return &x.Request.Header }},
	{name: clientAddress, size: 45, other: func(x *exchange.Exchange) ref.Val {
		return types.String(appendAddress(nil, x))
	}},
	{name: "identity.subject", size: sizeWord, str: func(x *exchange.Exchange) string { return x.Identity.Subject }},
	{name: "identity.application", size: sizeWord,
		str: func(x *exchange.Exchange) string { return x.Identity.Application }},
	{name: "identity.plan", size: sizeWord, str: func(x *exchange.Exchange) string { return x.Identity.Plan }},
	{name: "identity.credentialID", size: sizeWord,
		str: func(x *exchange.Exchange) string { return x.Identity.CredentialID }},
	{name: "identity.issuer", size: sizeWord, str: func(x *exchange.Exchange) string { return x.Identity.Issuer }},
	{name: "identity.method", size: 32, str: func(x *exchange.Exchange) string { return x.Identity.Method }},
	{name: identityScopes, size: sizeScopes, other: func(x *exchange.Exchange) ref.Val {
		return types.NewStringList(types.DefaultTypeAdapter, x.Identity.Scopes)
	}},
	{name: identityClaims, size: sizeClaims, other: func(x *exchange.Exchange) ref.Val {
		return &table{fields: claims(x.Identity.Claims)}
	}},
	{name: responseStatus, other: func(x *exchange.Exchange) ref.Val { return types.Int(x.Response.Status) }},
	{name: responseHeaders, size: sizeHeaders,
		header: func(x *exchange.Exchange) *exchange.Header { return &x.Response.Header }},
}

const (
	requestHeaders  = "request.headers"
	responseHeaders = "response.headers"
	responseStatus  = "response.status"
	clientAddress   = "client.address"
	identityScopes  = "identity.scopes"
	identityClaims  = "identity.claims"
)

// find is the attribute of that name, or nil.
func find(name string) *attribute {
	for i := range attributes {
		if attributes[i].name == name {
			return &attributes[i]
		}
	}
	return nil
}

// clientPath is the path that was matched: a rewrite does not change what rules are about.
func clientPath(x *exchange.Exchange) []byte {
	if x.ClientPath != nil {
		return x.ClientPath
	}
	return x.Request.Path
}

// appendAddress appends the text of the client's address, "" if there is none. An IPv4 address is written as one, also if the socket
// says ::ffff:192.0.2.7.
func appendAddress(dst []byte, x *exchange.Exchange) []byte {
	if a := x.Client.Addr(); a.IsValid() {
		return a.Unmap().AppendTo(dst)
	}
	return dst
}

// value is the attribute for cel.
func (a *attribute) value(x *exchange.Exchange) ref.Val {
	switch {
	case a.bytes != nil:
		return types.String(a.bytes(x))
	case a.str != nil:
		return types.String(a.str(x))
	case a.header != nil:
		return &table{fields: headers{a.header(x)}}
	}
	return a.other(x)
}
