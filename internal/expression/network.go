package expression

import (
	"fmt"
	"net/netip"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

const inNetwork = "inNetwork"

// networkFunction declares inNetwork(address, network) and inNetwork(address, [network, ...]). A text that is no address or no
// network is an error, which closes whatever asked.
func networkFunction() cel.EnvOption {
	return cel.Function(inNetwork,
		cel.Overload("in_network_string", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType,
			cel.BinaryBinding(func(address, network ref.Val) ref.Val {
				return inNetworks(address, []ref.Val{network})
			})),
		cel.Overload("in_network_list", []*cel.Type{cel.StringType, cel.ListType(cel.StringType)}, cel.BoolType,
			cel.BinaryBinding(func(address, networks ref.Val) ref.Val {
				l, ok := networks.(traits.Lister)
				if !ok {
					return types.MaybeNoSuchOverloadErr(networks)
				}
				var all []ref.Val
				for it := l.Iterator(); it.HasNext() == types.True; {
					all = append(all, it.Next())
				}
				return inNetworks(address, all)
			})))
}

func inNetworks(address ref.Val, networks []ref.Val) ref.Val {
	text, ok := address.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(address)
	}
	a, err := parseAddress(string(text))
	if err != nil {
		return types.WrapErr(err)
	}
	in := false
	for _, n := range networks {
		text, ok := n.(types.String)
		if !ok {
			return types.MaybeNoSuchOverloadErr(n)
		}
		p, err := parseNetwork(string(text))
		if err != nil {
			return types.WrapErr(err)
		}
		in = in || p.Contains(a)
	}
	return types.Bool(in)
}

// parseAddress parses an address. An IPv4 address within IPv6 is one of IPv4; a zone is dropped.
func parseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, errAddress
	}
	return a.Unmap().WithZone(""), nil
}

// parseNetwork parses 10.0.0.0/8, or an address for itself alone.
func parseNetwork(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := parseAddress(s)
		if err != nil {
			return netip.Prefix{}, errNetwork
		}
		return a.Prefix(a.BitLen())
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, errNetwork
	}
	return p.Masked(), nil
}

// networkRule refuses constants that are no networks.
func (c *checked) networkRule(e ast.Expr) error {
	es := []ast.Expr{e}
	if e.Kind() == ast.ListKind {
		es = e.AsList().Elements()
	}
	for _, e := range es {
		text, ok := literal(e)
		if !ok {
			continue
		}
		if _, err := parseNetwork(text); err != nil {
			return &Fault{Msg: at(c.ast, e, "%q is not a network", text), Hint: "write 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7"}
		}
	}
	return nil
}

// networks are the constants of the second argument of inNetwork; false if it has others.
func networks(e ast.Expr) ([]netip.Prefix, bool) {
	es := []ast.Expr{e}
	if e.Kind() == ast.ListKind {
		es = e.AsList().Elements()
	}
	nets := make([]netip.Prefix, len(es))
	for i, e := range es {
		text, ok := literal(e)
		if !ok {
			return nil, false
		}
		var err error
		if nets[i], err = parseNetwork(text); err != nil {
			return nil, false
		}
	}
	return nets, true
}

var (
	errAddress = fmt.Errorf("inNetwork: the text is not an IP address")
	errNetwork = fmt.Errorf("inNetwork: the text is not a network")
)
