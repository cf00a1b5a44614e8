package egress

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/idna"
)

func TestCallbacksThatMayBeCalled(t *testing.T) {
	open := Policy{AllowHTTP: true, Networks: networks("loopback", "private")}
	listed := Policy{Hosts: must(ParseHosts([]string{"hooks.example.com", "*.Example.org", "*.bücher.example", "8.8.8.8", "[2001:4860:4860::8888]", "x.internal"}))}
	metadata := Policy{AllowHTTP: true, Networks: networks("169.254.169.254", "fd00:ec2::254")}
	for _, c := range []struct {
		policy Policy
		raw    string
		want   string // the same, if empty
	}{
		{Policy{}, "https://example.com", ""},
		{Policy{}, "https://hooks.example.com/in?token=a%20b&x=ü", ""},
		{Policy{}, "https://Hooks.EXAMPLE.com:8443/In", "https://hooks.example.com:8443/In"},
		{Policy{}, "HTTPS://example.com/", "https://example.com/"},
		{Policy{}, "https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"},
		{Policy{}, "https://xn--bcher-kva.example/", ""},
		{Policy{}, "https://under_score.example.com/", ""},
		{Policy{}, "https://example.com/a/../b", ""},
		{Policy{}, "https://8.8.8.8/", ""},
		{Policy{}, "https://1.1.1.1:65535/", ""},
		{Policy{}, "https://[2001:4860:4860::8888]:8443/", ""},
		{Policy{}, "https://[2001:4860:4860::FFFE]/", "https://[2001:4860:4860::fffe]/"},
		{Policy{}, "https://[64:ff9b::808:808]/", ""},
		{Policy{}, "https://[2002:808:808::1]/", ""},
		{Policy{}, "https://7f.example/", ""},
		{Policy{}, "https://0x7f/a", "blocked"},
		{Policy{}, "https://0x7f.example/a", ""},
		{Policy{}, "https://127.0.0.1.nip.io/", ""}, // which is refused when its address is known
		{Policy{}, "https://receiver/", ""},
		{open, "http://localhost:8080/hook", ""},
		{open, "http://a.localhost", ""},
		{open, "http://127.0.0.1:8080/hook", ""},
		{open, "http://127.8.9.1/", ""},
		{open, "http://[::1]/", ""},
		{open, "http://10.0.0.7/", ""},
		{open, "http://[fd00::7]/", ""},
		{open, "http://[64:ff9b::a00:1]/", ""},
		{open, "http://printer.local/", ""},
		{open, "http://host.docker.internal:9000/", ""},
		{listed, "https://hooks.example.com/", ""},
		{listed, "https://a.example.org/", ""},
		{listed, "https://a.b.example.org/", ""},
		{listed, "https://a.bücher.example/", "https://a.xn--bcher-kva.example/"},
		{listed, "https://8.8.8.8/", ""},
		{listed, "https://[2001:4860:4860::8888]/", ""},
		{listed, "https://x.internal/", ""},
		{metadata, "http://169.254.169.254/", ""},
		{metadata, "http://[fd00:ec2::254]/", ""},
		{metadata, "http://metadata.google.internal/", ""},
	} {
		u, err := c.policy.CheckURL(c.raw)
		if c.want == "blocked" {
			if err == nil {
				t.Errorf("%s is a callback", c.raw)
			}
			continue
		}
		if c.want == "" {
			c.want = must(url.Parse(c.raw)).String()
		}
		if err != nil || u.String() != c.want {
			t.Errorf("%s is %v, %v; want %s", c.raw, u, err, c.want)
		}
	}
}

// The spellings of an address are refused even where the address is permitted, and permission
// for a network is none for what is beside it or carried through it.
func TestCallbacksThatMayNotBeCalled(t *testing.T) {
	open := Policy{AllowHTTP: true, Networks: networks("loopback", "private")}
	all := Policy{AllowHTTP: true, Networks: networks("0.0.0.0/0", "::/0")}
	translator := Policy{AllowHTTP: true, Networks: networks("64:ff9b:1:7::/64", "64:ff9b:1:8::/96")}
	listed := Policy{Hosts: []string{"hooks.example.com", "*.example.org", "*.local"}}
	for _, c := range []struct {
		policy Policy
		raw    string
		says   string
	}{
		{Policy{}, "", "missing"},
		{Policy{}, "http://example.com", "https"},
		{Policy{}, "example.com/hook", "https://"},
		{Policy{}, "ftp://example.com", "scheme"},
		{Policy{}, "https:example.com", "no URL"},
		{Policy{}, "https://user:secret@example.com/", "auth"},
		{Policy{}, "https://example.com/#frag", "fragment"},
		{Policy{}, "https://example.com#", "fragment"},
		{Policy{}, "https://example.com:", "port"},
		{Policy{}, "https://example.com:0/", "port"},
		{Policy{}, "https://example.com:65536/", "port"},
		{Policy{}, "https://example.com:0443/", "port"},
		{Policy{}, "https://example.com/a b", "U+0020"},
		{Policy{}, "https://example.com/\x7f", "U+007F"},
		{Policy{}, "https://example.com/\xff", "UTF-8"},
		{Policy{}, "https://exa\\mple.com/", "backslash"},
		{Policy{}, "https://example.com/" + strings.Repeat("a", maxURL), "bytes"},
		{Policy{}, "https://" + strings.Repeat("a", 64) + ".com/", "no name"},
		{Policy{}, "https://" + strings.Repeat("a.", 127) + "com/", "no name"},
		{Policy{}, "https://example.com./", "no name"},
		{Policy{}, "https://exa$mple.com/", "no name"},
		{Policy{}, "https://xn--zzzzzzzzz99.com/", "no name"},
		{Policy{}, "https://example%2ecom/", "percent"},
		{Policy{}, "https://127.1/", "four decimal numbers"},
		{Policy{}, "https://127.0.0.1/", "allow_networks loopback"},
		{Policy{}, "https://[2001:4860:4860:0::8888]/", "usual form"},
		{Policy{}, "https://metadata.google.internal/", "metadata"},
		{open, "http://127.1/", "four decimal numbers"},
		{open, "http://2130706433/", "four decimal numbers"},
		{open, "http://１２７．０．０．１/", "four decimal numbers"},
		{open, "http://[::ffff:127.0.0.1]/", "usual form"},
		{open, "http://[0:0:0:0:0:0:0:1]/", "usual form"},
		{open, "http://[::1%25lo]/", "percent"},
		{open, "http://169.254.1.1/", "link-local"},
		{open, "http://100.64.0.1/", "carrier"},
		{open, "http://[fd00:ec2::254]/", "metadata"},
		{open, "http://metadata.google.internal/", "metadata"},
		{all, "http://169.254.169.254/", "metadata"},
		{all, "http://[64:ff9b::a9fe:a9fe]/", "metadata"},
		{all, "http://100.100.100.200/", "metadata"},
		{translator, "http://[64:ff9b:1:7:7f:0:100:0]/", "gateway's own machine"},
		{translator, "http://[64:ff9b:1:8::a00:1]/", "private"},
		{translator, "http://[64:ff9b:1:9::808:808]/", "translated"},
		{listed, "https://example.com/", "allow_hosts"},
		{listed, "https://example.org/", "allow_hosts"},
		{listed, "https://evilexample.org/", "allow_hosts"},
		{listed, "https://hooks.example.com.evil.example/", "allow_hosts"},
		{listed, "https://8.8.8.8/", "allow_hosts"},
		{Policy{Hosts: []string{"127.0.0.1"}}, "https://127.0.0.1/", "own machine"},
		{Policy{Hosts: []string{"*.internal"}}, "https://metadata.google.internal/", "metadata"},
		{Policy{Hosts: []string{"localhost"}}, "https://localhost/", "own machine"},
		{Policy{Networks: networks("loopback")}, "https://db.internal/", "private network"},
	} {
		u, err := c.policy.CheckURL(c.raw)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.80q is %v, %v; want %q", c.raw, u, err, c.says)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || len(err.Error()) > 512) {
			t.Errorf("%.80q: the error tells too much: %v", c.raw, err)
		}
	}
	for port, raw := range map[string]string{"7": "http://[64:ff9b:1:7:8:808:800:0]/", "8": "http://[64:ff9b:1:8::808:808]/"} {
		if _, err := translator.CheckURL(raw); err != nil {
			t.Errorf("translator %s: %v", port, err)
		}
	}
}

func TestNetworks(t *testing.T) {
	got := networks("10.0.0.0/8", "192.168.1.7", "::ffff:10.1.0.0/112", "fd00::/8", "::1", "::/0", "::ffff:1.2.3.4")
	want := "[10.0.0.0/8 192.168.1.7/32 10.1.0.0/16 fd00::/8 ::1/128 ::/0 1.2.3.4/32]"
	if text := strings.ReplaceAll(strings.Join(texts(got), " "), "  ", " "); "["+text+"]" != want {
		t.Errorf("networks are %s, want %s", text, want)
	}
	for _, word := range []string{"", "10.0.0.0/33", "10.0.0.1/8", "10.0.0/8", "fe80::1%eth0", "fe80::%eth0/64", "all", "Private", "010.0.0.1", "::ffff:0:0/95"} {
		if _, err := ParseNetworks([]string{"loopback", word}); err == nil || !strings.Contains(err.Error(), strconv.Quote(word)) {
			t.Errorf("%q is a network: %v", word, err)
		}
	}
	for _, word := range []string{"", "*", "*.", "a.*.com", "**.com", "https://example.com", "example.com:443", "example.com/", "127.1", "*.1", "*.10.0.0.1", "a b"} {
		if hosts, err := ParseHosts([]string{word}); err == nil {
			t.Errorf("%q is a host: %q", word, hosts)
		}
	}
}

func texts(prefixes []netip.Prefix) (list []string) {
	for _, p := range prefixes {
		list = append(list, p.String())
	}
	return list
}

// aton reads IPv4 addresses as generously as any libc does: up to four numbers, decimal, octal or
// hexadecimal, the last for all that is left; whatever is too large wraps. It knows nothing of what is tested.
func aton(host string) (netip.Addr, bool) {
	parts := strings.Split(strings.TrimRight(host, "."), ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var sum uint64
	for i, part := range parts {
		base := 10
		lower := strings.ToLower(part)
		switch {
		case lower == "0x":
			lower = "0"
		case strings.HasPrefix(lower, "0x"):
			base, lower = 16, lower[2:]
		case len(lower) > 1 && lower[0] == '0' && strings.Trim(lower, "01234567") == "":
			base, lower = 8, lower[1:]
		}
		n, err := strconv.ParseUint(lower, base, 64)
		if err != nil {
			return netip.Addr{}, false
		}
		if i < len(parts)-1 {
			sum |= (n & 0xff) << (8 * (3 - i))
		} else {
			sum |= n & (1<<(8*(5-len(parts))) - 1)
		}
	}
	return netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}), true
}

// forbidden is a second opinion, from what the standard library knows.
func forbidden(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified() ||
		addr.Is4() && (addr.As4()[0] == 0 || addr.As4()[0] >= 240) || addr.Is6() && addr.As16()[0] == 0 && addr.As16()[1] == 0
}

// FuzzCheckURL looks for a URL that is a callback, and of which a parser, a resolver or a libc makes
// an address that is not to be called.
func FuzzCheckURL(f *testing.F) {
	for _, host := range append(append([]string{}, thisMachine...), elsewhere...) {
		f.Add("https://" + host + "/hook")
	}
	for _, format := range confusing {
		f.Add(strings.ReplaceAll(format, "%s", "443"))
	}
	for _, raw := range []string{"https://example.com", "https://8.8.8.8:443/a?b=c", "https://[2001:4860:4860::8888]/", "https://bücher.example"} {
		f.Add(raw)
	}
	var policy Policy
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := policy.CheckURL(raw)
		if err != nil {
			if len(err.Error()) > 1024 {
				t.Fatalf("%q: an error of %d bytes", raw, len(err.Error()))
			}
			if blocked := (*BlockedError)(nil); errors.As(err, &blocked) && blocked.Why == "" {
				t.Fatalf("%q is blocked without a reason", raw)
			}
			return
		}
		if u.Scheme != "https" || u.User != nil || u.Fragment != "" || u.Opaque != "" || u.Hostname() == "" {
			t.Fatalf("%q became %#v", raw, u)
		}
		again, err := policy.CheckURL(u.String())
		if len(u.String()) <= maxURL && (err != nil || again.String() != u.String()) {
			t.Fatalf("%q became %s, which became %v, %v", raw, u, again, err)
		}
		// The host as it was written, as it is kept, and as the HTTP client maps it.
		hosts := []string{u.Hostname(), must(url.Parse(raw)).Hostname()}
		for _, host := range hosts {
			for _, profile := range []*idna.Profile{idna.Lookup, idna.Punycode, idna.Display} {
				if mapped, err := profile.ToASCII(host); err == nil {
					hosts = append(hosts, mapped)
				}
			}
		}
		for _, host := range hosts {
			addr, isAddr := aton(host)
			if parsed, err := netip.ParseAddr(host); err == nil {
				addr, isAddr = parsed, true
			}
			if isAddr && (forbidden(addr) || policy.refuses(addr) != "") {
				t.Fatalf("%q is a callback, and %q is %s", raw, host, addr)
			}
			if name := strings.ToLower(strings.TrimRight(host, ".")); name == "localhost" || strings.HasSuffix(name, ".localhost") {
				t.Fatalf("%q is a callback, and it is %s", raw, name)
			}
			if !isAddr && policy.control(t.Context(), "tcp", host+":443", nil) == nil {
				t.Fatalf("%q would be connected to without an address", raw)
			}
		}
	})
}
