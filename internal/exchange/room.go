package exchange

// Keep copies parts, one after the other, into room of the exchange and returns the copy, which stays as it is until Reset:
// longer than any hook, and until the exchange was written down. handle finds it again (Kept), for a step that keeps it from one
// hook to the next in Local.N; it is never 0 and uses the lower 62 bits. Keep allocates only while the room grows.
func (x *Exchange) Keep(parts ...[]byte) (kept []byte, handle int64) {
	start := len(x.room)
	for _, p := range parts {
		x.room = append(x.room, p...)
	}
	n := len(x.room) - start
	return x.room[start:len(x.room):len(x.room)], int64(start)<<31 | int64(n+1)
}

// Kept returns what Keep copied.
func (x *Exchange) Kept(handle int64) []byte {
	start, n := int(handle>>31)&(1<<31-1), int(handle&(1<<31-1))-1
	return x.room[start : start+n : start+n]
}
