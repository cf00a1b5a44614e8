package egress

import (
	"net/netip"
)

// special is a network that is not called, and what it is.
type special struct {
	prefix netip.Prefix
	why    string
}

func network(prefix, why string) special {
	return special{netip.MustParsePrefix(prefix), why}
}

// Reasons. They tell what the operator can do where that may be sensible.
const (
	whyPrivate   = "its address is private (the operator can permit it with allow_networks)"
	whyLoopback  = "its address is the gateway's own machine (the operator can permit it with allow_networks loopback)"
	whyLinkLocal = "its address is link-local"
	whyMetadata  = "its address is that of a cloud's metadata service"
	whyReserved  = "its address is reserved, and not one of the public internet"
	whyMulticast = "its address is one of many machines, and not of one"
	whyTest      = "its address is for documentation or benchmarks only"
	whyNAT64     = "its address is translated into an IPv4 address by a network of its own (the operator can permit it with allow_networks)"
)

// special4 is what the IANA registry of special-purpose addresses calls not globally reachable, multicast,
// and the anycast address of 6to4 relays.
var special4 = []special{
	network("0.0.0.0/8", "its address is unspecified"),
	network("10.0.0.0/8", whyPrivate),
	network("100.64.0.0/10", "its address is shared behind a carrier's NAT (the operator can permit it with allow_networks)"),
	network("127.0.0.0/8", whyLoopback),
	network("169.254.0.0/16", whyLinkLocal),
	network("172.16.0.0/12", whyPrivate),
	network("192.0.0.0/24", whyReserved),
	network("192.0.2.0/24", whyTest),
	network("192.88.99.0/24", whyReserved),
	network("192.168.0.0/16", whyPrivate),
	network("198.18.0.0/15", whyTest),
	network("198.51.100.0/24", whyTest),
	network("203.0.113.0/24", whyTest),
	network("224.0.0.0/4", whyMulticast),
	network("240.0.0.0/4", whyReserved),
}

// special6 is what is not called although it is within global unicast; and what lies
// outside of that, to tell why. All else out there is refused, too.
var special6 = []special{
	network("::/128", "its address is unspecified"),
	network("::1/128", whyLoopback),
	network("::/96", "its address is an IPv4 address in a form that is no longer used"),
	network("64:ff9b:1::/48", whyNAT64),
	network("2001:db8::/32", whyTest),
	network("2001:2::/48", whyTest),
	network("3fff::/20", whyTest),
	network("fc00::/7", whyPrivate),
	network("fe80::/10", whyLinkLocal),
	network("fec0::/10", whyPrivate),
	network("ff00::/8", whyMulticast),
}

var (
	globalUnicast = netip.MustParsePrefix("2000::/3")
	protocols6    = netip.MustParsePrefix("2001::/23") // IETF protocol assignments
	teredo        = netip.MustParsePrefix("2001::/32")
	sixToFour     = netip.MustParsePrefix("2002::/16")
	nat64         = netip.MustParsePrefix("64:ff9b::/96")
	localNAT64    = netip.MustParsePrefix("64:ff9b:1::/48")

	metadata4 = netip.MustParseAddr("169.254.169.254")
)

// metadata are addresses whose answers are credentials. Somebody who permits the private
// networks around them doesn't mean them.
var metadata = map[netip.Addr]bool{
	metadata4:                              true, // nearly all clouds
	netip.MustParseAddr("169.254.170.2"):   true, // Amazon ECS
	netip.MustParseAddr("169.254.170.23"):  true, // Amazon EKS
	netip.MustParseAddr("fd00:ec2::254"):   true, // Amazon EC2
	netip.MustParseAddr("fd00:ec2::23"):    true, // Amazon EKS
	netip.MustParseAddr("fd20:ce::254"):    true, // Google Cloud
	netip.MustParseAddr("168.63.129.16"):   true, // Azure, and a public address
	netip.MustParseAddr("100.100.100.200"): true, // Alibaba Cloud
	netip.MustParseAddr("192.0.0.192"):     true, // Oracle Cloud
}

// refuses says why an address is not called, or nothing.
func (p *Policy) refuses(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	if metadata[addr] {
		if !p.single(addr) {
			return whyMetadata
		}
		return ""
	}
	if !p.inside(addr) {
		if why := refusedByDefault(addr); why != "" {
			return why
		}
	}
	// Who permits an address that carries another doesn't mean that other one.
	inner, n := p.embedded(addr)
	for _, v4 := range inner[:n] {
		if why := p.refuses(v4); why != "" {
			return why
		}
	}
	return ""
}

func refusedByDefault(addr netip.Addr) string {
	if addr.Is4() {
		return find(special4, addr)
	}
	if why := find(special6, addr); why != "" {
		return why
	}
	switch {
	case nat64.Contains(addr), teredo.Contains(addr): // by what they carry
		return ""
	case !globalUnicast.Contains(addr), protocols6.Contains(addr):
		return whyReserved
	}
	return ""
}

func find(list []special, addr netip.Addr) string {
	for _, s := range list {
		if s.prefix.Contains(addr) {
			return s.why
		}
	}
	return ""
}

// embedded are the IPv4 addresses to which packets for an IPv6 address go in the end, where
// there is a translator or a tunnel for it.
func (p *Policy) embedded(addr netip.Addr) (inner [2]netip.Addr, n int) {
	if !addr.Is6() {
		return inner, 0
	}
	b := addr.As16()
	add := func(i0, i1, i2, i3 int, xor byte) {
		inner[n] = netip.AddrFrom4([4]byte{b[i0] ^ xor, b[i1] ^ xor, b[i2] ^ xor, b[i3] ^ xor})
		n++
	}
	switch {
	case nat64.Contains(addr):
		add(12, 13, 14, 15, 0)
	case localNAT64.Contains(addr):
		// The length of the translator's prefix says where the address is (RFC 6052 §2.2).
		switch p.prefixLength(addr) {
		case 48:
			add(6, 7, 9, 10, 0)
		case 56:
			add(7, 9, 10, 11, 0)
		case 64:
			add(9, 10, 11, 12, 0)
		default:
			add(12, 13, 14, 15, 0)
		}
	case sixToFour.Contains(addr):
		add(2, 3, 4, 5, 0)
	case teredo.Contains(addr): // the server, and the client behind its NAT
		add(4, 5, 6, 7, 0)
		add(12, 13, 14, 15, 0xff)
	}
	if n == 0 && b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe { // ISATAP
		add(12, 13, 14, 15, 0)
	}
	return inner, n
}

// prefixLength is that of the narrowest permitted network around addr, or -1.
func (p *Policy) prefixLength(addr netip.Addr) int {
	longest := -1
	for _, prefix := range p.Networks {
		if prefix.Contains(addr) {
			longest = max(longest, prefix.Bits())
		}
	}
	return longest
}

// inside tells whether the operator permits the address.
func (p *Policy) inside(addr netip.Addr) bool { return p.prefixLength(addr) >= 0 }

// single tells whether the operator permits the very address.
func (p *Policy) single(addr netip.Addr) bool { return p.prefixLength(addr) == addr.BitLen() }
