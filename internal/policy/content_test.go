package policy

import (
	"strings"
	"testing"
)

func TestContentType(t *testing.T) {
	for _, tt := range []struct{ body, in, want, problem string }{
		{"x", "text/html", "text/html; charset=utf-8", ""},
		{"x", "text/plain; charset=iso-8859-1", "text/plain; charset=iso-8859-1", ""},
		{"x", "application/json", "application/json", ""},
		{strings.Repeat("x", 64<<10), "text/css", "text/css; charset=utf-8", ""},
		{strings.Repeat("x", 64<<10+1), "text/css", "", "body: is longer than 64 KiB"},
		{"x", "", "", "contentType: is missing"},
		{"x", "html", "", "contentType: is not a media type"},
		{"x", "text/html; charset", "", "contentType: is not a media type"},
		{"x", "text/html\r\nSet-Cookie: a=b", "", "contentType: is not a media type"},
	} {
		got, p := ContentType(tt.body, tt.in)
		switch {
		case p == nil && tt.problem == "":
			if string(got) != tt.want {
				t.Errorf("ContentType(%q) = %q, want %q", tt.in, got, tt.want)
			}
		case p == nil || tt.problem == "" || !strings.HasPrefix(p.Error(), tt.problem):
			t.Errorf("ContentType(%q) has the problem %v, want %q", tt.in, p, tt.problem)
		}
	}
}
