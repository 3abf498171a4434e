package policy

import "strings"

// owned are the fields that the edge writes itself or that end here, in lower case, with what users do instead.
var owned = map[string]string{
	"connection":                connectionField,
	"keep-alive":                connectionField,
	"proxy-connection":          connectionField,
	"te":                        connectionField,
	"http2-settings":            connectionField,
	"trailer":                   "the edge writes it for each message",
	"expect":                    "the edge writes it for each message",
	"transfer-encoding":         framingField,
	"content-length":            framingField,
	"upgrade":                   "the edge decides which protocols are let through",
	"host":                      "use a URLRewrite filter with hostname",
	"proxy":                     endingField, // CGI-like servers make HTTP_PROXY of it (CVE-2016-5385)
	"proxy-authorization":       endingField,
	"proxy-authenticate":        endingField,
	"proxy-authentication-info": endingField,
}

const (
	connectionField = "the edge writes it for each connection"
	framingField    = "the edge frames each message"
	endingField     = "it is for the edge as a proxy and never sent on: write Authorization, WWW-Authenticate or a name of your own"
)

// OwnedField reports whether users cannot have a header field of this name written, in any spelling that a server may take for it
// (Content_Length), and says what to do instead. gone: no message has it anyway, so that taking it out asks for nothing.
func OwnedField(name string) (hint string, is, gone bool) {
	hint, is = owned[strings.ReplaceAll(strings.ToLower(name), "_", "-")]
	return hint, is, hint == endingField
}
