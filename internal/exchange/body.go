package exchange

// Body is a message body by credit: the reader is offered bytes and says how many it has taken, and only what was
// taken makes room for more. So HTTP/1's back pressure (do not read the socket) and HTTP/2's windows (WINDOW_UPDATE for
// what was taken) are one thing.
type Body interface {
	// Offer waits until bytes or the end are there and returns the bytes not yet taken; end says that nothing follows
	// them. The slice is valid until the next Take or Offer. After an error (the peer went away, the framing is broken,
	// a deadline passed) every later call returns the same error. A cancelled exchange makes a waiting Offer return.
	Offer() (p []byte, end bool, err error)
	// Take gives back the first n of the bytes last offered.
	Take(n int)
}
