package egress

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// tunnels is a proxy by CONNECT. It alone knows the names.
type tunnels struct {
	names  map[string]string // host:port to address
	refuse int               // a status, if not 0
	extra  string            // what it sends after its answer

	mu      sync.Mutex
	asked   []string
	auth    string
	running int
}

func (p *tunnels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.count(1)
	defer p.count(-1)
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.RequestURI)
	p.auth = r.Header.Get("Proxy-Authorization")
	p.mu.Unlock()
	address, known := p.names[r.Host]
	switch {
	case p.refuse != 0:
		w.WriteHeader(p.refuse)
		return
	case r.Method != http.MethodConnect || !known:
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	there, err := net.Dial("tcp", address)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	here, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = there.Close()
		return
	}
	_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n"+p.extra)
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(here, there); _ = here.Close(); _ = there.Close() }()
	_, _ = io.Copy(there, here)
	_ = here.Close()
	_ = there.Close()
	<-done
}

func (p *tunnels) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running += n
}

// wait is for what the server of the proxy doesn't wait for: tunnels are no requests any more.
func (p *tunnels) wait(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		running := p.running
		p.mu.Unlock()
		if running == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d tunnels are open", running)
		}
	}
}

func (p *tunnels) calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func proxiedOptions(target *counted, proxy, userinfo string) Options {
	opt := target.options()
	opt.Policy.Networks = nil // the proxy is exempt, and the target is known by its name alone
	u := must(ParseProxy(strings.Replace(proxy, "://", "://"+userinfo, 1)))
	opt.Proxy, opt.ConnectTimeout = u, time.Second
	return opt
}

func TestProxy(t *testing.T) {
	for _, secure := range []bool{false, true} { // the target
		for _, secureProxy := range []bool{false, true} {
			target := newCounted(t, secure, nil, func(_ http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Proxy-Authorization") != "" {
					t.Error("the target is shown the proxy's credentials")
				}
			})
			p := &tunnels{names: map[string]string{"example.com:80": target.Listener.Addr().String(), "example.com:443": target.Listener.Addr().String()}}
			server := httptest.NewUnstartedServer(p)
			if secureProxy {
				server.StartTLS()
			} else {
				server.Start()
			}
			opt := proxiedOptions(target, server.URL, "user:p%40ss@")
			if secureProxy {
				opt.ProxyTLS = must(NewTLS(TLSOptions{CA: []string{caOf(server)}}))
			}
			client := newClient(t, opt)
			scheme := "http://"
			if secure {
				scheme = "https://"
			}
			for range 3 {
				if status, err := post(client, scheme+"example.com/hook"); err != nil || status != http.StatusOK {
					t.Errorf("TLS %v, proxy by TLS %v: %d, %v", secure, secureProxy, status, err)
				}
			}
			if n := len(p.calls()); n != 1 {
				t.Errorf("%d tunnels for three calls: %q", n, p.calls())
			}
			if want := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:p@ss")); p.auth != want {
				t.Errorf("the proxy was shown %q, want %q", p.auth, want)
			}
			// What is not to be called isn't, by whatever way. The proxy isn't even asked.
			for _, host := range []string{"127.0.0.1", "127.1", "[::1]", "10.0.0.1", "169.254.169.254", "localhost", "metadata.google.internal", "db.internal", "[64:ff9b::7f00:1]"} {
				if outcome, text := Classify(second(post(client, scheme+host))); outcome != entrypoints.Blocked {
					t.Errorf("%s: %s %s", host, outcome, text)
				}
			}
			if n := len(p.calls()); n != 1 {
				t.Errorf("the proxy was asked for what is not to be called: %q", p.calls())
			}
			client.CloseIdleConnections()
			server.Close()
			p.wait(t)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestProxyHosts(t *testing.T) {
	target := newCounted(t, false, nil, func(http.ResponseWriter, *http.Request) {})
	p := &tunnels{names: map[string]string{"a.example.org:80": target.Listener.Addr().String()}}
	server := httptest.NewServer(p)
	opt := proxiedOptions(target, server.URL, "")
	opt.Policy.Hosts = []string{"*.example.org"}
	client := newClient(t, opt)
	if status, err := post(client, "http://a.example.org"); err != nil || status != http.StatusOK {
		t.Errorf("%d, %v", status, err)
	}
	if outcome, text := Classify(second(post(client, "http://example.com"))); outcome != entrypoints.Blocked || !strings.Contains(text, "allow_hosts") {
		t.Errorf("%s %s", outcome, text)
	}
	client.CloseIdleConnections()
	server.Close()
	p.wait(t)
}

// Whose fault it is has to be told: the subscriber can't mend a proxy.
func TestProxyFaults(t *testing.T) {
	target := newCounted(t, false, nil, func(http.ResponseWriter, *http.Request) {})
	names := map[string]string{"example.com:80": target.Listener.Addr().String()}
	silent := must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = silent.Close() })
	closed := must(net.Listen("tcp", "127.0.0.1:0"))
	_ = closed.Close()
	for _, c := range []struct {
		name    string
		proxy   *tunnels
		url     string
		outcome entrypoints.Outcome
		says    string
	}{
		{"credentials", &tunnels{refuse: 407}, "", entrypoints.Unreachable, "the proxy refused the connection: 407 Proxy Authentication Required"},
		{"refusal", &tunnels{refuse: 403}, "", entrypoints.Unreachable, "the proxy refused the connection: 403 Forbidden"},
		{"unknown name", &tunnels{}, "", entrypoints.Unreachable, "502"},
		{"too much", &tunnels{names: names, extra: "HTTP/1.1 200 OK\r\n\r\n"}, "", entrypoints.Unreachable, "before there was a tunnel"},
		{"silence", nil, "http://" + silent.Addr().String(), entrypoints.TimedOut, "the proxy made no connection in time"},
		{"silence, TLS", nil, "https://" + silent.Addr().String(), entrypoints.TimedOut, "the proxy made no connection in time"},
		{"silence, SOCKS", nil, "socks5://" + silent.Addr().String(), entrypoints.TimedOut, "the proxy made no connection in time"},
		{"nobody", nil, "http://user:secret@" + closed.Addr().String(), entrypoints.Unreachable, "the proxy made no connection: the connection failed: connect: connection refused"},
		{"nobody, SOCKS", nil, "socks5://user:secret@" + closed.Addr().String(), entrypoints.Unreachable, "the proxy made no connection: the connection failed: connect: connection refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			proxyURL := c.url
			if c.proxy != nil {
				server := httptest.NewServer(c.proxy)
				defer c.proxy.wait(t)
				defer server.Close()
				proxyURL = server.URL
			}
			opt := proxiedOptions(target, proxyURL, "")
			opt.ConnectTimeout = 200 * time.Millisecond
			begun := time.Now()
			outcome, text := Classify(second(post(newClient(t, opt), "http://example.com/?token=secret")))
			if outcome != c.outcome || !strings.Contains(text, c.says) || strings.Contains(text, "secret") || strings.Contains(text, "127.0.0.1") {
				t.Errorf("%s: %s", outcome, text)
			}
			if took := time.Since(begun); took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestSOCKS(t *testing.T) {
	target := newCounted(t, true, nil, func(http.ResponseWriter, *http.Request) {})
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { socksServer(t, conn, target.Listener.Addr().String()) })
		}
	})
	for _, scheme := range []string{"socks5", "socks5h"} {
		client := newClient(t, proxiedOptions(target, scheme+"://"+l.Addr().String(), "user:secret@"))
		for range 2 {
			if status, err := post(client, "https://example.com"); err != nil || status != http.StatusOK {
				t.Errorf("%d, %v", status, err)
			}
		}
		if outcome, text := Classify(second(post(client, "https://other.example.com"))); outcome != entrypoints.Unreachable || !strings.Contains(text, "proxy") {
			t.Errorf("%s %s", outcome, text)
		}
		if outcome, text := Classify(second(post(client, "https://127.0.0.1"))); outcome != entrypoints.Blocked {
			t.Errorf("%s %s", outcome, text)
		}
		client.CloseIdleConnections()
	}
	_ = l.Close()
	target.CloseClientConnections()
	wg.Wait()
}

// socksServer is RFC 1928 with user and password (RFC 1929), for one name.
func socksServer(t *testing.T, conn net.Conn, address string) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	read := func(n int) []byte {
		b := make([]byte, n)
		_, _ = io.ReadFull(r, b)
		return b
	}
	methods := read(2)
	if offered := read(int(methods[1])); !strings.Contains(string(offered), "\x02") {
		t.Errorf("methods %v", offered)
	}
	_, _ = conn.Write([]byte{5, 2})
	user := string(read(int(read(2)[1])))
	if password := string(read(int(read(1)[0]))); user != "user" || password != "secret" {
		t.Errorf("user %q, password %q", user, password)
	}
	_, _ = conn.Write([]byte{1, 0})
	if request := read(4); request[1] != 1 || request[3] != 3 {
		t.Errorf("request %v, want CONNECT to a name", request)
		return
	}
	name, port := string(read(int(read(1)[0]))), binary.BigEndian.Uint16(read(2))
	if name != "example.com" || port != 443 {
		_, _ = conn.Write([]byte{5, 4, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	there, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(there, r); _ = there.Close() }()
	_, _ = io.Copy(conn, there)
	_ = conn.Close()
	<-done
}

func TestParseProxy(t *testing.T) {
	for _, raw := range []string{"http://proxy:3128", "https://u:p@proxy.example.com", "socks5://10.0.0.1:1080/", "socks5h://[::1]:1080"} {
		if u, err := ParseProxy(raw); err != nil || u.String() != raw {
			t.Errorf("%s: %v, %v", raw, u, err)
		}
	}
	for _, raw := range []string{"", "proxy:3128", "ftp://proxy", "http://", "http://proxy/path", "http://proxy?a=secret", "http://u:secret@proxy:0", "http://u:secret@pro xy", "socks4://proxy", "http://" + strings.Repeat("secret", 50) + "@proxy"} {
		if u, err := ParseProxy(raw); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, %v", raw, u, err)
		}
	}
}
