package main

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// tree is a MaxMind DB (format 2.0) in the making: for IPv6, with IPv4 networks under ::/96, nodes of two records of 24 bits. A record is
// the number of a node; how many nodes there are, for nothing; or more than that, for data.
type tree struct {
	nodes [][2]int // -1: nothing; below -1: data at -2-n
	data  []byte
}

// text, number and table are the format's types 2, 5 or 6, and 7; all are short.
func text(s string) []byte { return append([]byte{2<<5 | byte(len(s))}, s...) }

func number(kind byte, n uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, n)
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	return append([]byte{kind<<5 | byte(len(b))}, b...)
}

func table(pairs ...[]byte) (out []byte) {
	out = []byte{7<<5 | byte(len(pairs)/2)}
	for _, p := range pairs {
		out = append(out, p...)
	}
	return out
}

// put says that a network lies in a country; "" is a record without one.
func (t *tree) put(network, country string) {
	p := netip.MustParsePrefix(network)
	bits, a := p.Bits(), p.Addr().As16()
	if p.Addr().Is4() {
		bits += 96
		a = netip.AddrFrom16([16]byte{12: p.Addr().As4()[0], 13: p.Addr().As4()[1], 14: p.Addr().As4()[2], 15: p.Addr().As4()[3]}).As16()
	}
	if t.nodes == nil {
		t.nodes = [][2]int{{-1, -1}}
	}
	n := 0
	for i := range bits {
		bit := a[i/8] >> (7 - i%8) & 1
		if i == bits-1 {
			t.nodes[n][bit] = -2 - len(t.data)
			break
		}
		if t.nodes[n][bit] < 0 {
			t.nodes = append(t.nodes, [2]int{-1, -1})
			t.nodes[n][bit] = len(t.nodes) - 1
		}
		n = t.nodes[n][bit]
	}
	record := table()
	if country != "" {
		record = table(text("country"), table(text("iso_code"), text(country)))
	}
	t.data = append(t.data, record...)
}

// file writes the database.
func (t *tree) file(tb testing.TB) string {
	tb.Helper()
	var b []byte
	count := len(t.nodes)
	for _, n := range t.nodes {
		for _, r := range n {
			switch {
			case r == -1:
				r = count
			case r < -1:
				r = count + 16 + (-2 - r)
			}
			b = append(b, byte(r>>16), byte(r>>8), byte(r))
		}
	}
	b = append(append(b, make([]byte, 16)...), t.data...)
	b = append(b, "\xab\xcd\xefMaxMind.com"...)
	b = append(b, table(text("node_count"), number(6, uint32(count)), text("record_size"), number(5, 24), text("ip_version"), number(5, 6),
		text("database_type"), text("Country"), text("binary_format_major_version"), number(5, 2), text("binary_format_minor_version"), number(5, 0),
		text("build_epoch"), append([]byte{4, 2}, 0x65, 0, 0, 0)[:6], text("languages"), []byte{0, 4}, text("description"), table())...)
	name := filepath.Join(tb.TempDir(), "countries.mmdb")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		tb.Fatal(err)
	}
	return name
}
