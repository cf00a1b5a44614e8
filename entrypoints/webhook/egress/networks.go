package egress

import (
	"fmt"
	"net/netip"
	"strings"
)

// words stand for networks.
var words = map[string][]netip.Prefix{
	"loopback": {netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	"private": {
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fc00::/7"),
	},
}

// ParseNetworks reads networks: in CIDR form, as a single address, or the words "private"
// (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7) and "loopback" (127.0.0.0/8, ::1).
func ParseNetworks(list []string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for _, word := range list {
		if named, ok := words[word]; ok {
			networks = append(networks, named...)
			continue
		}
		prefix, err := parseNetwork(word)
		if err != nil {
			return nil, err
		}
		networks = append(networks, prefix)
	}
	return networks, nil
}

func parseNetwork(word string) (netip.Prefix, error) {
	if !strings.Contains(word, "/") {
		addr, err := netip.ParseAddr(word)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%.64q is no network: write it as 10.0.0.0/8, a single address, private or loopback", word)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(word)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%.64q is no network: write it as 10.0.0.0/8, a single address, private or loopback", word)
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("%.64q has bits behind its mask: the network is %s, the address alone %s", word, prefix.Masked(), prefix.Addr())
	}
	if prefix.Addr().Is4In6() {
		if prefix.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%.64q is no network: write IPv4 addresses as such", word)
		}
		return netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96), nil
	}
	return prefix, nil
}

// ParseHosts reads a list of hosts as Policy.Hosts has them: names, "*." and a domain, or
// addresses.
func ParseHosts(list []string) ([]string, error) {
	hosts := make([]string, 0, len(list))
	for _, word := range list {
		text, below := strings.CutPrefix(word, "*.")
		if addr, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil && !below && addr.Zone() == "" && !addr.Is4In6() {
			hosts = append(hosts, addr.String())
			continue
		}
		name, ok := asciiName(text)
		if !ok || !validName(name) || endsInNumber(name) {
			return nil, fmt.Errorf("%.128q is no host: write a name like hooks.example.com, *.example.com for all below it, or an address; no scheme, port or path", word)
		}
		if below {
			name = "*." + name
		}
		hosts = append(hosts, name)
	}
	return hosts, nil
}
