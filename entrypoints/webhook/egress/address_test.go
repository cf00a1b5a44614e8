package egress

import (
	"net/netip"
	"strings"
	"testing"
)

// TestAddresses goes along the edges of every network that is refused.
func TestAddresses(t *testing.T) {
	var policy Policy
	for addr, refused := range map[string]bool{
		"0.255.255.255": true, "1.0.0.0": false, "9.255.255.255": false, "10.0.0.0": true, "10.255.255.255": true, "11.0.0.0": false,
		"100.63.255.255": false, "100.64.0.0": true, "100.127.255.255": true, "100.128.0.0": false,
		"126.255.255.255": false, "127.0.0.0": true, "127.255.255.255": true, "128.0.0.0": false,
		"169.253.255.255": false, "169.254.0.0": true, "169.254.255.255": true, "169.255.0.0": false,
		"172.15.255.255": false, "172.16.0.0": true, "172.31.255.255": true, "172.32.0.0": false,
		"191.255.255.255": false, "192.0.0.0": true, "192.0.0.255": true, "192.0.1.0": false, "192.0.2.0": true, "192.0.3.0": false,
		"192.88.98.255": false, "192.88.99.0": true, "192.88.100.0": false, "192.167.255.255": false, "192.168.0.0": true, "192.169.0.0": false,
		"198.17.255.255": false, "198.18.0.0": true, "198.19.255.255": true, "198.20.0.0": false, "198.51.99.255": false, "198.51.100.0": true, "198.51.101.0": false,
		"203.0.112.255": false, "203.0.113.255": true, "203.0.114.0": false, "223.255.255.255": false, "224.0.0.0": true, "239.255.255.255": true, "240.0.0.0": true, "255.255.255.255": true,
		"168.63.129.15": false, "168.63.129.16": true, "168.63.129.17": false,
		"::": true, "::1": true, "::2": true, "::8.8.8.8": true, "::ffff:8.8.8.8": false, "::ffff:10.0.0.1": true, "::ffff:0:8.8.8.8": true,
		"64:ff9b::8.8.8.8": false, "64:ff9b::10.0.0.1": true, "64:ff9b::168.63.129.16": true, "64:ff9b:0:0:1::": true, "64:ff9b:1::8.8.8.8": true, "100::1": true, "1fff::1": true,
		"2000::1": false, "2001::": true, "2001:0:808:808:0:0:f7f7:f7f7": false, "2001:0:a00:1:0:0:f7f7:f7f7": true, "2001:0:808:808:0:0:f5ff:fffe": true,
		"2001:1::1": true, "2001:1ff::1": true, "2001:200::1": false, "2001:db7::1": false, "2001:db8::1": true, "2001:db9::1": false,
		"2002:808:808::": false, "2002:a00:1::": true, "2002:7f00:1::": true, "2002:a9fe:a9fe::": true, "2003::1": false,
		"2600::5efe:8.8.8.8": false, "2600::5efe:10.0.0.1": true, "2600::200:5efe:10.0.0.1": true, "2600::100:5efe:10.0.0.1": false,
		"3ffe::1": false, "3fff::1": true, "3fff:fff::1": true, "3fff:1000::1": false, "4000::1": true, "fbff::1": true,
		"fc00::1": true, "fdff::1": true, "fe00::1": true, "fe80::1": true, "fe80::1%eth0": true, "fec0::1": true, "ff02::1": true, "2600::1%eth0": false,
	} {
		if why := policy.refuses(netip.MustParseAddr(addr)); (why != "") != refused {
			t.Errorf("%s: %q, want that it is refused: %v", addr, why, refused)
		}
	}
	for _, address := range []string{"", "example.com:80", ":80", "10.0.0.1", "[::1]", "8.8.8.8:x"} {
		if policy.control(t.Context(), "tcp4", address, nil) == nil {
			t.Errorf("a connection to %q is made", address)
		}
	}
	for _, network := range []string{"udp", "udp4", "unix", "ip4:icmp", ""} {
		if policy.control(t.Context(), network, "8.8.8.8:53", nil) == nil {
			t.Errorf("a connection by %q is made", network)
		}
	}
	if err := policy.control(t.Context(), "tcp6", "[2600::1]:443", nil); err != nil {
		t.Error(err)
	}
}

// Every reason has to make a sentence of the error, and every network has to be one.
func TestReasons(t *testing.T) {
	for _, s := range append(append([]special{}, special4...), special6...) {
		if s.prefix != s.prefix.Masked() || s.prefix.Addr().Is4In6() || s.why == "" {
			t.Errorf("%s: %q", s.prefix, s.why)
		}
		text := (&BlockedError{Host: "example.com", Addr: s.prefix.Addr(), Why: s.why}).Error()
		if !strings.HasPrefix(text, "the gateway does not call example.com ("+s.prefix.Addr().String()+"): its address ") {
			t.Error(text)
		}
	}
}
