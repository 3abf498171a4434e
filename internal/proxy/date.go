package proxy

var nameDate = []byte("Date")

// dateFormat is IMF-fixdate (RFC 9110 section 5.6.7).
const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT"

// date is the text of a second, written once for all responses of a connection in that second.
type date struct {
	second int64
	text   [len(dateFormat)]byte
}

// setDate completes the head of a final response that has no Date (RFC 9110 section 6.6.1): with when the last event happened, which is
// when the head was there. A flow that was told no time has no clock, and says nothing. Whatever a step removed, it comes last.
func (f *Flow) setDate() {
	h := &f.Response.Header
	if f.Now.IsZero() || h.Has("Date") {
		return
	}
	d := &f.date
	if now := f.Now.Unix(); now != d.second {
		d.second = now
		f.Now.UTC().AppendFormat(d.text[:0], dateFormat)
	}
	h.Append(nameDate, d.text[:])
}
