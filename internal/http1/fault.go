package http1

// Fault is why a message is refused. Values are made once: a fault costs no allocation.
type Fault struct {
	Status int    // of the answer: 400, 413 to 431, 501, 505, and 502 for whatever a backend sent
	Reason string // stable word for log, metric and problem document: "bad_request_line"
	Detail string // one sentence for people
}

// Error is reason and detail.
func (f *Fault) Error() string { return f.Reason + ": " + f.Detail }

// code is a fault, whoever made it: requestFaults and responseFaults say what it means. 0 is none.
type code uint8

const (
	_ code = iota
	codeLine
	codeRequestLine
	codeStatusLine
	codeVersion
	codeTarget
	codePath
	codeConnect
	codeFold
	codeNameSpace
	codeFieldName
	codeFieldValue
	codeLineEnd
	codeHeaderBytes
	codeHeaderCount
	codeNoHost
	codeHost
	codeHosts
	codeHostMismatch
	codeConnection
	codeLength
	codeLengths
	codeBoth
	codeCoding
	codeCodingUnknown
	codeCodingVersion
	codeExpect
	codeUpgradeBody
	codeSwitch
	codeInterimBody
	codeChunkSize
	codeChunkExtension
	codeChunkExtensions
	codeChunkEnd
	codeTrailer
	codeTrailerBytes
	codeTrailerField
	codes
)

var requestFaults = [codes]*Fault{
	codeLine: {414, "request_line_too_long", "the request line is longer than the limit"},
	codeRequestLine: {400, "bad_request_line",
		"a request line is a method, a target and a version with single spaces between them, ended by CRLF"},
	codeVersion:       {505, "unsupported_version", "the version is not HTTP/1.0 or HTTP/1.1"},
	codeTarget:        {400, "bad_target", "the request target is not well formed, or not in a form that its method has"},
	codePath:          {400, "bad_path", "the path has malformed percent-encoding, a NUL, or both an empty and a dot segment"},
	codeConnect:       {400, "connect_not_allowed", "CONNECT is for proxies that clients choose themselves"},
	codeFold:          {400, "bad_header", "a line begins with white space: folded field lines are obsolete"},
	codeNameSpace:     {400, "bad_header", "white space follows a field name"},
	codeFieldName:     {400, "bad_header", "a field name is empty or holds a byte that is no token"},
	codeFieldValue:    {400, "bad_header", "a field value holds a control byte or is not ended by CRLF"},
	codeLineEnd:       {400, "bad_header", "a line has no colon, or is not ended by CRLF"},
	codeHeaderBytes:   {431, "header_too_large", "the header section is larger than the limit"},
	codeHeaderCount:   {431, "too_many_fields", "the header section has more field lines than the limit"},
	codeNoHost:        {400, "missing_host", "an HTTP/1.1 request has no Host"},
	codeHost:          {400, "bad_host", "the host is no name, IPv4 address or bracketed IPv6 address, with no port or one from 1 to 65535"},
	codeHosts:         {400, "bad_host", "there are several Host fields"},
	codeHostMismatch:  {400, "host_mismatch", "the target's authority differs from Host"},
	codeConnection:    {400, "bad_connection", "Connection is not a list of at most 64 tokens"},
	codeLength:        {400, "bad_content_length", "Content-Length is not a decimal number without sign and leading zeros"},
	codeLengths:       {400, "bad_content_length", "there are several Content-Length fields"},
	codeBoth:          {400, "ambiguous_length", "both Transfer-Encoding and Content-Length are there"},
	codeCoding:        {400, "bad_transfer_encoding", "the last transfer coding has to be chunked, which may be there only once"},
	codeCodingUnknown: {501, "unsupported_transfer_encoding", "chunked is the only transfer coding that is understood"},
	codeCodingVersion: {400, "bad_transfer_encoding", "HTTP/1.0 has no Transfer-Encoding"},
	codeExpect:        {417, "unknown_expectation", "100-continue is the only expectation that is understood"},
	codeUpgradeBody:   {400, "upgrade_with_body", "a request that changes the protocol has no body"},
	codeChunkSize: {400, "bad_chunk",
		"a chunk size is one to sixteen hexadecimal digits, followed by CRLF or an extension, and fits 63 bits"},
	codeChunkExtension:  {400, "bad_chunk", "a chunk extension is not well formed"},
	codeChunkExtensions: {400, "chunk_extensions_too_large", "the chunk extensions are longer than 4 KiB"},
	codeChunkEnd:        {400, "bad_chunk", "the data of a chunk is not followed by CRLF"},
	codeTrailer:         {400, "bad_trailer", "a line of the trailer section is not well formed"},
	codeTrailerBytes:    {431, "trailer_too_large", "the trailer section is larger than the limit"},
	codeTrailerField:    {400, "bad_trailer", "the trailer section holds Host, Content-Length or Transfer-Encoding"},
}

// responseFaults differ from requestFaults in that they blame the backend.
var responseFaults = func() (t [codes]*Fault) {
	for c, f := range requestFaults {
		if f == nil {
			continue
		}
		t[c] = &Fault{Status: 502, Reason: "upstream_bad_header", Detail: f.Detail}
		if code(c) >= codeChunkSize {
			t[c].Reason = "upstream_bad_body"
		}
	}
	for c, detail := range map[code]string{
		codeLine:        "the status line is longer than the limit",
		codeStatusLine:  "a status line is a version, a status of three digits and a reason, ended by CRLF",
		codeSwitch:      "a 101 response has no Upgrade field, or Connection does not name it",
		codeInterimBody: "a 1xx response has a body",
	} {
		t[c] = &Fault{Status: 502, Reason: "upstream_bad_header", Detail: detail}
	}
	t[codeHeaderBytes].Reason, t[codeHeaderCount].Reason = "upstream_header_too_large", "upstream_header_too_large"
	return t
}()
