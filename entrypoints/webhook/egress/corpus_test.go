package egress

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// thisMachine are spellings of 127.0.0.1, ::1 and 0.0.0.0 that some resolver, libc, browser or
// URL library takes for one.
var thisMachine = []string{
	// decimal, octal, hexadecimal, short, padded, mixed
	"127.0.0.1", "127.1", "127.0.1", "127.127", "127.255.255.254", "127.0.0.2",
	"2130706433", "02130706433", "0x7f000001", "0X7F000001", "0x7f.1", "0x7f.0.0.1", "0x7F.0X0.0x0.0X1",
	"0x7f.0x000.0x0000.0x001", "0x0000007f000001", "0177.0.0.1", "0177.1", "017700000001", "00000177.0.0.1",
	"127.000.000.001", "127.0.0.01", "127.0.0.0x1", "127.0x0.0.01", "0177.0x0.0.1", "127.0.1.", "127.0.0.1.",
	"127.0.0.1..", "127.0.0.1...", ".127.0.0.1", "127..0.1", "2130706433.", "0x7f000001.",
	"4294967296", "6425673729", "0x17f000001", "256.127.0.0.1", "127.0.0.257",
	"0", "00", "0x0", "0x", "0.", "0.0.0.0", "0.0", "0000.0.0.0", "0.0.0.1",
	// IDNA: full-width, mathematical, enclosed and superscript digits, and the other dots
	"１２７．０．０．１", "127。0。0。1", "127｡0｡0｡1", "127．0．0．1", "①②⑦.⓪.⓪.①", "𝟏𝟐𝟕.𝟎.𝟎.𝟏", "𝟣𝟤𝟩.𝟢.𝟢.𝟣",
	"¹²⁷.⁰.⁰.¹", "２１３０７０６４３３", "０ｘ７ｆ０００００１", "127.0.0.１", "127.0.0.\u00ad1", "127.0.0.\u200b1", "xn--127-ug7f.0.0.1",
	// percent-encoded
	"%31%32%37.%30.%30.%31", "127%2e0%2e0%2e1", "127%2E0.0.1", "127.0.0.1%00", "127.0.0.1%00.example.com",
	"127.0.0.1%2f.example.com", "127.0.0.1%23.example.com", "%E3%80%82", "%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1",
	// names
	"localhost", "LOCALHOST", "LocalHost", "localhost.", "localhost..", "a.localhost", "a.b.localhost.", "ｌｏｃａｌｈｏｓｔ", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
	"loc\u00adalhost", "localhost。", "printer.local", "db.internal", "host.docker.internal",
	// IPv6: long, mapped, compatible, translated, tunnelled, with zones
	"[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[::0:1]", "[::0001]",
	"[::ffff:127.0.0.1]", "[::FFFF:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:7f00:0001]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::ffff:0.0.0.0]",
	"[::127.0.0.1]", "[::7f00:1]", "[::ffff:0:127.0.0.1]", "[::ffff:0:7f00:1]",
	"[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::127.0.0.1]", "[64:ff9b:1::7f00:1]", "[64:ff9b:1:7f00:0:100::]",
	"[2002:7f00:1::]", "[2002:7f00:1::1]", "[2002:7f00:0001:0:0:0:0:1]",
	"[2001:0:7f00:1::]", "[2001::7f00:1:0:0:0]", "[2001:0:808:808::80ff:fffe]",
	"[fe80::5efe:127.0.0.1]", "[fe80::5efe:7f00:1]", "[2600::5efe:7f00:1]", "[2600::200:5efe:7f00:1]",
	"[::1%25lo]", "[::1%lo]", "[::1%25]", "[fe80::1%25eth0]", "[fe80::1%25lo]", "[127.0.0.1]", "[2130706433]", "[localhost]", "[]", "[v1.127]", "::1",
}

// elsewhere are addresses and names that are not on this machine, and not for strangers either.
var elsewhere = []string{
	// metadata services
	"169.254.169.254", "169.254.170.2", "169.254.170.23", "168.63.129.16", "100.100.100.200", "192.0.0.192",
	"2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "0251.254.169.254", "169.254.43518", "169.16689662", "0xA9.0xFE.0xA9.0xFE",
	"169.254.169.254.", "１６９．２５４．１６９．２５４", "①⑥⑨。②⑤④。①⑥⑨。②⑤④",
	"[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[::a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[2001:0:808:808::5601:5601]",
	"[fd00:ec2::254]", "[fd00:ec2::23]", "[fd00:0ec2::254]", "[fd20:ce::254]", "[64:ff9b::a83f:8110]",
	"metadata", "metadata.google.internal", "METADATA.google.internal", "metadata.google.internal.", "metadata.goog", "instance-data", "instance-data.ec2.internal",
	// private, shared, link-local, reserved
	"10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.1.1", "100.64.0.1", "100.127.255.255", "169.254.1.1",
	"0.1.2.3", "192.0.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1",
	"224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.254", "255.255.255.255", "167772161", "0x0a000001", "012.0.0.1", "10.1", "192.168.257", "3232235777", "0300.0250.1.1",
	"[fc00::1]", "[fd12:3456:789a::1]", "[fe80::1]", "[febf::1]", "[fec0::1]", "[feff::1]", "[ff02::1]", "[ff0e::1]", "[100::1]", "[5f00::1]", "[4000::1]", "[1::1]",
	"[2001:db8::1]", "[3fff::1]", "[2001:2::1]", "[2001:10::1]", "[2001:20::1]", "[::ffff:10.0.0.1]", "[::10.0.0.1]", "[64:ff9b::a00:1]", "[64:ff9b::10.0.0.1]",
	"[2002:a00:1::1]", "[2002:c0a8:101::1]", "[2001:0:a00:1::]", "[2001:0:808:808::f5ff:fffe]", "[2600::5efe:a00:1]", "[::8.8.8.8]", "[64:ff9b:1::808:808]",
}

// confusing are URLs that parsers do not agree on, or no HTTP. %s is the trap's port.
var confusing = []string{
	"http://user@127.0.0.1:%s/", "http://user:secret@127.0.0.1:%s/", "http://example.com@127.0.0.1:%s/", "http://@127.0.0.1:%s/",
	"http://127.0.0.1:%s@example.com/", "http://example.com:80@127.0.0.1:%s/", "http://a@b@127.0.0.1:%s/", "http://example.com%%40127.0.0.1:%s/",
	"http://127.0.0.1:%s#@example.com/", "http://example.com#@127.0.0.1:%s/", "http://127.0.0.1:%s\\@example.com/", "http://example.com\\@127.0.0.1:%s/",
	"http:\\\\127.0.0.1:%s\\", "http://127.0.0.1:%s\\.example.com/", "http:127.0.0.1:%s/", "http:/127.0.0.1:%s/", "http:///127.0.0.1:%s/", "http:////127.0.0.1:%s/",
	"//127.0.0.1:%s/", "127.0.0.1:%s", "/127.0.0.1:%s/", "?127.0.0.1:%s", " http://127.0.0.1:%s/", "http://127.0.0.1:%s/ ", "http://127.0.0.1:%s/\r\nHost: example.com",
	"http://127.0.0.1\t:%s/", "http://127.0.0.1\n:%s/", "http://127.0.0.1 :%s/", "http://127.0.0.1\u2028:%s/", "http://127.0.0.1\x00:%s/", "http://127.0.0.1:\u0000%s/",
	"http://127.0.0.1:0%s/", "http://127.0.0.1:+%s/", "http://127.0.0.1:%s0000/", "http://127.0.0.1:%s:80/", "http://[::1]%s/", "http://[::1]:%s:80/", "http://[::1/%s", "http://::1:%s/",
	"http://:%s/", "https://:%s", "ftp://127.0.0.1:%s/", "gopher://127.0.0.1:%s/_GET", "dict://127.0.0.1:%s/", "ldap://127.0.0.1:%s/", "file://127.0.0.1:%s/etc/passwd",
	"ws://127.0.0.1:%s/", "h2c://127.0.0.1:%s/", "unix://127.0.0.1:%s/", "http+unix://127.0.0.1:%s/", "jar:http://127.0.0.1:%s!/", "url:http://127.0.0.1:%s/", "javascript:127.0.0.1:%s", "data:127.0.0.1:%s",
	"HTTP://127.0.0.1:%s/", "hTtP://LOCALHOST:%s/", "http\u017f://127.0.0.1:%s/",
}

// TestSSRFCorpus lets nobody through to where a listener waits, or to where none is to be
// called. Everything is tried twice: as a callback, and as a request of whom did not check it.
func TestSSRFCorpus(t *testing.T) {
	t.Run("URLs", testCorpusURLs)
	t.Run("redirects", testCorpusRedirects)
	t.Run("rebinding", testCorpusRebinding)
	t.Run("mixed answers", testCorpusMixed)
	t.Run("names", testCorpusNames)
}

func testCorpusURLs(t *testing.T) {
	tr := newTrap(t, "127.0.0.1", "::1")
	// Whoever resolves what is no name of DNS comes to the trap.
	everything := resolver(t, func(_ string, v6 bool, _ int) []string {
		if v6 {
			return []string{"::1"}
		}
		return []string{"127.0.0.1"}
	})
	var urls []string
	for _, host := range append(append([]string{}, thisMachine...), elsewhere...) {
		urls = append(urls, "http://"+host+":"+tr.port+"/hook?a=b", "https://"+host+":"+tr.port, "https://"+host)
	}
	for _, format := range confusing {
		urls = append(urls, fmt.Sprintf(format, tr.port))
	}
	policy := Policy{AllowHTTP: true}
	client := newClient(t, Options{Policy: policy, Resolver: everything})
	for _, raw := range urls {
		if u, err := policy.CheckURL(raw); err == nil {
			t.Errorf("%q is a callback: %s", raw, u)
		}
		// Who did not check: blocked, where it can be called at all. No luck stands between.
		request, err := http.NewRequest(http.MethodPost, raw, nil)
		if err != nil || request.URL.Host == "" || request.URL.Scheme != "http" && request.URL.Scheme != "https" {
			continue
		}
		status, err := post(client, raw)
		if outcome, text := Classify(err); outcome != entrypoints.Blocked {
			t.Errorf("%q was called: %d, %s %s", raw, status, outcome, text)
		}
	}
	if n := tr.connected.Load(); n != 0 {
		t.Fatalf("%d connections reached the gateway's own machine", n)
	}
	t.Logf("%d URLs refused", len(urls))
	// The trap does work: it is not for nothing that nobody came.
	permitted := newClient(t, Options{Policy: Policy{AllowHTTP: true, Networks: networks("loopback")}, Resolver: everything})
	for _, host := range []string{"127.0.0.1", "[::1]", "localhost", "hooks.example.com"} {
		if status, err := post(permitted, "http://"+host+":"+tr.port); err != nil || status != http.StatusOK {
			t.Errorf("%s is permitted: %d, %v", host, status, err)
		}
	}
	if n := tr.connected.Load(); n != 4 {
		t.Fatalf("%d connections of 4 that are permitted", n)
	}
}

// A server that may be called redirects to one that may not.
func testCorpusRedirects(t *testing.T) {
	tr := newTrap(t, "127.0.0.1")
	var calls atomic.Int64
	var target string
	server := serve(t, "127.0.0.2:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		to := r.URL.Query().Get("to")
		if r.URL.Query().Get("hops") != "" {
			to = "/?code=302&to=" + target
		}
		code := http.StatusFound
		_, _ = fmt.Sscan(r.URL.Query().Get("code"), &code)
		w.Header()["Location"] = []string{to}
		w.Header().Set("Refresh", "0; url="+target)
		w.WriteHeader(code)
	}))
	target = "http://127.0.0.1:" + tr.port + "/"
	client := newClient(t, Options{Policy: Policy{AllowHTTP: true, Networks: networks("127.0.0.2")}})
	targets := []string{
		target, "//127.0.0.1:" + tr.port + "/", "http://localhost:" + tr.port, "http://[::ffff:127.0.0.1]:" + tr.port, "http://2130706433:" + tr.port,
		"http://169.254.169.254/latest/meta-data/", "https://127.0.0.1:" + tr.port, "http://[::1", "file:///etc/passwd", "gopher://127.0.0.1:" + tr.port, server.URL + "/again", "",
	}
	for _, code := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
		for _, to := range targets {
			for _, hops := range []string{"", "1"} {
				before := calls.Load()
				request := must(http.NewRequest(http.MethodPost, server.URL, strings.NewReader("message")))
				q := request.URL.Query()
				q.Set("code", fmt.Sprint(code))
				q.Set("to", to)
				q.Set("hops", hops)
				request.URL.RawQuery = q.Encode()
				response, err := client.Do(request)
				if err != nil {
					t.Errorf("%d to %q: %v, want the status", code, to, err)
					continue
				}
				_ = response.Body.Close()
				if response.StatusCode != code || calls.Load() != before+1 {
					t.Errorf("%d to %q: status %d after %d calls", code, to, response.StatusCode, calls.Load()-before)
				}
			}
		}
	}
	if n := tr.connected.Load(); n != 0 {
		t.Fatalf("%d redirects were followed", n)
	}
}

// A name is somewhere harmless when it is looked at, and here when it is called.
func testCorpusRebinding(t *testing.T) {
	tr := newTrap(t, "127.0.0.1", "::1")
	server := serve(t, "127.0.0.2:"+tr.port, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close") // so that every call connects
	}))
	rebinds := resolver(t, func(name string, v6 bool, n int) []string {
		switch {
		case v6 && strings.HasPrefix(name, "six.") && n > 1:
			return []string{"::1"}
		case v6:
			return nil
		case n == 1:
			return []string{"127.0.0.2"}
		case strings.HasPrefix(name, "six."):
			return nil
		case strings.HasPrefix(name, "flip.") && n%2 == 1:
			return []string{"127.0.0.2"}
		}
		return []string{"127.0.0.1"}
	})
	policy := Policy{AllowHTTP: true, Networks: networks("127.0.0.2")}
	client := newClient(t, Options{Policy: policy, Resolver: rebinds})
	for _, name := range []string{"rebind.example.com", "six.example.com", "flip.example.com"} {
		url := "http://" + name + ":" + tr.port
		if _, err := policy.CheckURL(url); err != nil {
			t.Fatal(err)
		}
		if status, err := post(client, url); err != nil || status != http.StatusOK {
			t.Fatalf("%s, the first time: %d, %v", name, status, err)
		}
		for range 10 {
			status, err := post(client, url)
			if outcome, text := Classify(err); outcome != entrypoints.Blocked && !(name == "flip.example.com" && status == http.StatusOK) {
				t.Errorf("%s, after its name has moved: %d, %s %s", name, status, outcome, text)
			}
		}
	}
	if n := tr.connected.Load(); n != 0 {
		t.Fatalf("%d connections to a name that had moved", n)
	}
	server.Close()
}

// A name has an address that may be called, and one that may not.
func testCorpusMixed(t *testing.T) {
	tr := newTrap(t, "127.0.0.1", "::1")
	good := "127.0.0.2"
	answers := map[string][2][]string{
		"a.example.com.": {{good, "127.0.0.1"}, nil},
		"b.example.com.": {{"127.0.0.1", good}, nil},
		"c.example.com.": {{good}, {"::1"}},
		"d.example.com.": {{"127.0.0.1", good}, {"::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"}},
	}
	mixed := resolver(t, func(name string, v6 bool, _ int) []string {
		if v6 {
			return answers[name][1]
		}
		return answers[name][0]
	})
	client := newClient(t, Options{Policy: Policy{AllowHTTP: true, Networks: networks(good)}, Resolver: mixed})
	try := func(reachable bool) {
		for name := range answers {
			url := "http://" + strings.TrimSuffix(name, ".") + ":" + tr.port
			for range 5 {
				status, err := post(client, url)
				if (err == nil && status == http.StatusOK) != reachable {
					t.Errorf("%s: %d, %v, want that it is called: %v", name, status, err, reachable)
				}
			}
		}
	}
	try(false)
	server := serve(t, good+":"+tr.port, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }))
	try(true)
	server.Close()
	try(false)
	if n := tr.connected.Load(); n != 0 {
		t.Fatalf("%d connections to the address that may not be called", n)
	}
}

// Names whose only addresses are not to be called.
func testCorpusNames(t *testing.T) {
	tr := newTrap(t, "127.0.0.1", "::1")
	addresses := []string{
		"127.0.0.1", "127.0.0.2", "0.0.0.0", "10.0.0.1", "169.254.169.254", "100.64.0.1", "192.168.1.1", "172.16.0.1", "255.255.255.255", "224.0.0.1",
		"::1", "::", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
		"::ffff:169.254.169.254", "2600::5efe:7f00:1", "168.63.129.16",
	}
	names := resolver(t, func(name string, v6 bool, _ int) []string {
		var i int
		if _, err := fmt.Sscanf(name, "n%d.", &i); err != nil || strings.Contains(addresses[i], ":") != v6 {
			return nil
		}
		return addresses[i : i+1]
	})
	client := newClient(t, Options{Policy: Policy{AllowHTTP: true}, Resolver: names})
	for i, address := range addresses {
		_, err := post(client, fmt.Sprintf("http://n%d.example.com:%s/", i, tr.port))
		outcome, text := Classify(err)
		if outcome != entrypoints.Blocked || strings.Contains(text, address) {
			t.Errorf("a name that is %s: %s, %q", address, outcome, text)
		}
		if blocked, ok := asBlocked(err); !ok || blocked.Host != fmt.Sprintf("n%d.example.com", i) || !blocked.Addr.IsValid() {
			t.Errorf("a name that is %s: %v does not tell", address, err)
		}
	}
	if n := tr.connected.Load(); n != 0 {
		t.Fatalf("%d connections", n)
	}
}
