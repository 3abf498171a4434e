package dns

import (
	"bytes"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// config is resolv.conf(5). nsswitch.conf is not read: the hosts file comes first, then DNS.
type config struct {
	servers  []netip.AddrPort
	search   []string
	ndots    int
	timeout  time.Duration // of one query
	attempts int
	rotate   bool
	tcp      bool // use-vc
}

func parseConfig(text []byte, port uint16) *config {
	c := &config{ndots: 1, timeout: 5 * time.Second, attempts: 2}
	for line := range bytes.Lines(text) {
		f := strings.Fields(string(line))
		if len(f) < 2 || f[0][0] == '#' || f[0][0] == ';' {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil && len(c.servers) < 3 {
				c.servers = append(c.servers, netip.AddrPortFrom(a, port))
			}
		case "domain":
			c.search = f[1:2]
		case "search": // the last one holds
			c.search = f[1:]
		case "options":
			c.options(f[1:])
		}
	}
	if len(c.servers) == 0 {
		c.servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
	}
	return c
}

func (c *config) options(fields []string) {
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		n, err := strconv.Atoi(value)
		switch name {
		case "rotate":
			c.rotate = true
		case "use-vc", "usevc", "tcp":
			c.tcp = true
		}
		if err != nil || n < 0 {
			continue
		}
		switch name {
		case "ndots":
			c.ndots = min(n, 15)
		case "timeout":
			c.timeout = time.Duration(min(max(n, 1), 30)) * time.Second
		case "attempts":
			c.attempts = min(max(n, 1), 5)
		}
	}
}

// candidates are the names to ask for, in their order, each with a dot at its end.
func (c *config) candidates(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	var out []string
	for _, s := range c.search {
		if s = strings.Trim(s, "."); s != "" {
			out = append(out, name+"."+s+".")
		}
	}
	if strings.Count(name, ".") >= c.ndots {
		return append([]string{name + "."}, out...)
	}
	return append(out, name+".")
}

// parseHosts reads a hosts file: an address and its names on each line.
func parseHosts(text []byte) map[string][]netip.Addr {
	hosts := map[string][]netip.Addr{}
	for line := range bytes.Lines(text) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		a, err := netip.ParseAddr(f[0])
		if err != nil {
			continue
		}
		for _, n := range f[1:] {
			n = strings.ToLower(strings.TrimSuffix(n, "."))
			hosts[n] = append(hosts[n], a.Unmap())
		}
	}
	return hosts
}

// files holds what was read, and reads it again when a file has changed.
type files struct {
	mu            sync.Mutex
	looked        time.Time
	config, hosts stamp
	conf          *config
	names         map[string][]netip.Addr
}

// stamp tells one state of a file from another.
type stamp struct {
	size int64
	at   time.Time
}

func (f *files) load(o Options) (*config, map[string][]netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.conf != nil && now.Sub(f.looked) < fileTTL {
		return f.conf, f.names
	}
	f.looked = now
	if s := stampOf(o.Config); f.conf == nil || s != f.config {
		text, _ := os.ReadFile(o.Config) // missing: the defaults
		f.config, f.conf = s, parseConfig(text, o.Port)
	}
	if s := stampOf(o.Hosts); f.names == nil || s != f.hosts {
		text, _ := os.ReadFile(o.Hosts)
		f.hosts, f.names = s, parseHosts(text)
	}
	return f.conf, f.names
}

func stampOf(path string) stamp {
	st, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{st.Size(), st.ModTime()}
}
