package policy

import (
	"mime"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// maxContent is how many bytes of body users may write into a policy: it stands in every snapshot.
const maxContent = 64 << 10

// ContentType checks a body that users write with its media type, and returns the value of Content-Type: a text without a
// charset is UTF-8, as the policy that it stands in. The paths of a problem are body and contentType.
func ContentType(body, contentType string) (value []byte, problem *diag.Problem) {
	switch {
	case len(body) > maxContent:
		return nil, &diag.Problem{Path: "body", Msg: "is longer than 64 KiB", Hint: "have a backend serve it"}
	case contentType == "":
		return nil, &diag.Problem{Path: "contentType", Msg: "is missing", Hint: "write text/html, text/plain or application/json"}
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || !strings.Contains(media, "/") || !exchange.IsFieldValue([]byte(contentType)) {
		return nil, &diag.Problem{Path: "contentType", Msg: "is not a media type", Hint: "write text/html, text/plain or application/json"}
	}
	if strings.HasPrefix(media, "text/") && params["charset"] == "" {
		contentType += "; charset=utf-8"
	}
	return []byte(contentType), nil
}
