package egress

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// Names by which the metadata services of clouds are reached. Their addresses are in address.go.
var metadataNames = map[string]bool{
	"metadata":                   true,
	"metadata.google.internal":   true,
	"metadata.goog":              true,
	"instance-data":              true,
	"instance-data.internal":     true,
	"instance-data.ec2.internal": true,
}

// checkHost says what a host, without brackets, is to be called, or a *BlockedError.
func (p *Policy) checkHost(text string, bracketed bool) (string, error) {
	host, addr, why := parseHost(text, bracketed)
	switch {
	case why != "":
	case len(p.Hosts) > 0 && !p.listed(host):
		why = "the operator has not put it into allow_hosts"
	case addr.IsValid():
		why = p.refuses(addr)
	default:
		why = p.refusesName(host)
	}
	if why != "" {
		return "", &BlockedError{Host: text, Addr: addr, Why: why}
	}
	return host, nil
}

// parseHost takes one spelling of each address, or else it would have to know what every
// resolver makes of all the others.
func parseHost(text string, bracketed bool) (host string, addr netip.Addr, why string) {
	if text == "" {
		return "", addr, "there is no host in the URL"
	}
	if bracketed || strings.Contains(text, ":") {
		host = strings.ToLower(text)
		addr, err := netip.ParseAddr(host)
		if err != nil || !addr.Is6() || addr.Is4In6() || addr.String() != host || addr.Zone() != "" {
			return "", netip.Addr{}, "that is no IPv6 address in its usual form, like [2001:4860:4860::8888], without a zone"
		}
		return host, addr, ""
	}
	host, ok := asciiName(text)
	switch {
	case ok && endsInNumber(host):
		addr, err := netip.ParseAddr(host)
		if err != nil || addr.String() != text {
			return "", netip.Addr{}, "an IPv4 address is written as four decimal numbers, like 192.0.32.8"
		}
		return host, addr, ""
	case !ok || !validName(host):
		return "", addr, "that is no name of a host"
	}
	return host, addr, ""
}

// asciiName is the name as it is looked up. Whatever only becomes a digit or a dot by being
// mapped is mapped here, as a resolver would, so that it is seen for what it is.
func asciiName(text string) (string, bool) {
	plain := true
	for i := range len(text) {
		if text[i] >= 0x80 {
			plain = false
		}
	}
	lower := strings.ToLower(text)
	if plain && !strings.Contains(lower, "xn--") {
		return lower, true
	}
	name, err := idna.Lookup.ToASCII(text)
	return name, err == nil && name != ""
}

// endsInNumber tells whether a host is meant to be an IPv4 address. It is the rule of the WHATWG's URL
// standard: the last label is a number, be it decimal, octal or hexadecimal, and be there a
// dot behind it. inet_aton, and with it getaddrinfo, takes nothing else for an address.
func endsInNumber(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last == "" {
		return false
	}
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}

// validName takes what DNS is used with: letters, digits, hyphens and underscores. A dot at the end is
// refused, because the name then goes past rules for the name without it.
func validName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// listed tells whether the operator's list has the host.
func (p *Policy) listed(host string) bool {
	for _, entry := range p.Hosts {
		domain, below := strings.CutPrefix(entry, "*")
		if below && len(host) > len(domain) && strings.EqualFold(host[len(host)-len(domain):], domain) {
			return true
		}
		if strings.EqualFold(host, entry) {
			return true
		}
	}
	return false
}

// refusesName says why a name is not called, whatever it resolves to, or nothing. These would
// be refused by their addresses; but not where a proxy resolves them.
func (p *Policy) refusesName(name string) string {
	switch {
	case metadataNames[name]:
		if !p.named(name) && !p.single(metadata4) {
			return "that is a cloud's metadata service"
		}
	case within(name, "localhost"):
		if !p.inside(netip.AddrFrom4([4]byte{127, 0, 0, 1})) && !p.inside(netip.IPv6Loopback()) {
			return "that is the gateway's own machine (the operator can permit it with allow_networks loopback)"
		}
	case within(name, "local"), within(name, "internal"):
		if !p.listed(name) && !p.permitsPrivate() {
			return "that is a name of a private network (the operator can permit it with allow_networks)"
		}
	}
	return ""
}

// permitsPrivate tells whether any network but the machine's own is permitted.
func (p *Policy) permitsPrivate() bool {
	for _, prefix := range p.Networks {
		if !prefix.Addr().IsLoopback() {
			return true
		}
	}
	return false
}

// named tells whether the list has the very name.
func (p *Policy) named(name string) bool {
	for _, entry := range p.Hosts {
		if strings.EqualFold(name, entry) {
			return true
		}
	}
	return false
}

func within(name, domain string) bool {
	return name == domain || strings.HasSuffix(name, "."+domain)
}
