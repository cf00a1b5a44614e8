// Package gateway starts a real Caddy with the message API modules inside a test, and ends
// it again: adapt, validate, serve, reload, stop, as the caddy command does. One runs at a
// time, because Caddy's configuration belongs to the process.
package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // what a real Caddy has
	"github.com/quic-go/quic-go/http3"
)

// Gateway is a running Caddy.
type Gateway struct {
	// Port serves plain HTTP/1.1 and h2c, TLSPort HTTPS with HTTP/1.1, 2 and 3. In a
	// Caddyfile they stand as PORT and TLSPORT, and the folder of the test as DIR.
	Port, TLSPort, AdminPort int

	t   testing.TB
	dir string
}

// Start serves a Caddyfile until the test ends. Its global options stand in globals.
func Start(t testing.TB, globals, sites string) *Gateway {
	t.Helper()
	g := &Gateway{t: t, dir: tempDir(t), Port: FreePort(t), TLSPort: FreePort(t), AdminPort: FreePort(t)}
	t.Cleanup(g.stop)
	if err := g.Load(globals, sites); err != nil {
		t.Fatalf("starting the gateway: %v", err)
	}
	return g
}

// tempDir is t.TempDir for a folder in which certificate jobs of a stopped Caddy may still
// write for a moment.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gateway")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		Eventually(t, 10*time.Second, "removing "+dir, func() bool { return os.RemoveAll(dir) == nil })
	})
	return dir
}

// Load replaces the configuration, as `caddy reload` does.
func (g *Gateway) Load(globals, sites string) error {
	cfg, err := g.Adapt(globals, sites)
	if err != nil {
		return err
	}
	return caddy.Load(cfg, true)
}

// Adapt turns a Caddyfile into Caddy's JSON.
func (g *Gateway) Adapt(globals, sites string) ([]byte, error) {
	text := g.expand(`{
	admin 127.0.0.1:ADMINPORT
	http_port PORT
	https_port TLSPORT
	skip_install_trust
	local_certs
	persist_config off
	storage file_system DIR/storage
	log {
		output file DIR/caddy.log {
			roll_disabled
		}
		level {$GATEWAY_LOG:INFO}
	}
` + globals + "\n}\n" + sites)
	cfg, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		if !strings.Contains(w.Message, "not formatted") {
			return nil, fmt.Errorf("warning: %s", w.Message)
		}
	}
	return cfg, nil
}

func (g *Gateway) expand(text string) string {
	return strings.NewReplacer(
		"ADMINPORT", fmt.Sprint(g.AdminPort), "TLSPORT", fmt.Sprint(g.TLSPort), "PORT", fmt.Sprint(g.Port), "DIR", g.dir,
	).Replace(text)
}

func (g *Gateway) stop() {
	if err := caddy.Stop(); err != nil {
		g.t.Errorf("stopping the gateway: %v", err)
	}
	if g.t.Failed() {
		g.t.Logf("the gateway's log:\n%s", g.Log())
	}
}

// LogFile is where the gateway logs to.
func (g *Gateway) LogFile() string { return filepath.Join(g.dir, "caddy.log") }

// Log is what the gateway has logged so far, at most its last 4 KiB.
func (g *Gateway) Log() string {
	raw, err := os.ReadFile(g.LogFile())
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-4<<10):])
}

// URL is the plain address of a path, TLS the encrypted one.
func (g *Gateway) URL(path string) string { return fmt.Sprintf("http://localhost:%d%s", g.Port, path) }

// TLS is the encrypted address of a path.
func (g *Gateway) TLS(path string) string {
	return fmt.Sprintf("https://localhost:%d%s", g.TLSPort, path)
}

// Admin asks Caddy's admin endpoint and decodes the answer into v, unless it is nil.
func (g *Gateway) Admin(method, path string, v any) int {
	g.t.Helper()
	req, err := http.NewRequest(method, fmt.Sprintf("http://127.0.0.1:%d%s", g.AdminPort, path), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	if v != nil {
		if err := json.Unmarshal(body, v); err != nil {
			g.t.Fatalf("%s %s: %s: %s", method, path, resp.Status, body)
		}
	}
	return resp.StatusCode
}

// AdminList reads the first page of a list of the admin API into v, a pointer to a slice. A
// configuration without message APIs has no store, and so empty lists.
func (g *Gateway) AdminList(path string, v any) {
	g.t.Helper()
	var page struct{ Items json.RawMessage }
	status := g.Admin("GET", path, &page)
	if status == http.StatusServiceUnavailable {
		page.Items = json.RawMessage("[]")
	} else if status != http.StatusOK {
		g.t.Fatalf("GET %s: %d", path, status)
	}
	if err := json.Unmarshal(page.Items, v); err != nil {
		g.t.Fatalf("GET %s: %s: %v", path, page.Items, err)
	}
}

// CA trusts the gateway's own certificate authority.
func (g *Gateway) CA() *tls.Config {
	g.t.Helper()
	pool := x509.NewCertPool()
	Eventually(g.t, 10*time.Second, "the gateway's root certificate", func() bool {
		pem, err := os.ReadFile(filepath.Join(g.dir, "storage", "pki", "authorities", "local", "root.crt"))
		return err == nil && pool.AppendCertsFromPEM(pem)
	})
	cfg := &tls.Config{RootCAs: pool}
	Eventually(g.t, 10*time.Second, "the gateway's certificate", func() bool {
		conn, err := tls.Dial("tcp", fmt.Sprintf("localhost:%d", g.TLSPort), cfg)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return cfg
}

// Client speaks one version of HTTP over TLS: 1, 2 or 3; or, as 0, plain HTTP/1.1. It leaves nothing behind.
func (g *Gateway) Client(version int) *http.Client {
	g.t.Helper()
	switch version {
	case 0: // plain
		tr := &http.Transport{MaxIdleConnsPerHost: 100}
		g.t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	case 1:
		tr := &http.Transport{TLSClientConfig: g.CA(), TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}, MaxIdleConnsPerHost: 100}
		g.t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	case 2:
		tr := &http.Transport{TLSClientConfig: g.CA(), ForceAttemptHTTP2: true}
		g.t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	default:
		tr := &http3.Transport{TLSClientConfig: g.CA()}
		g.t.Cleanup(func() { _ = tr.Close() })
		return &http.Client{Transport: tr}
	}
}

// FreePort finds a port that is free and lies outside the range from which the kernel takes
// ports for outgoing connections.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 200 {
		port := 20000 + int(time.Now().UnixNano()/1000)%12000
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		_ = l.Close()
		if taken[port] {
			continue
		}
		taken[port] = true
		return port
	}
	t.Fatal("no free port between 20000 and 32000")
	return 0
}

// taken are the ports given out, so that none is given twice before it is used. Tests
// that start gateways do not run in parallel.
var taken = make(map[int]bool)

// Eventually waits until ok says yes.
func Eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

var _ = httpcaddyfile.App{} // registers the caddyfile adapter
