package egress

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkPolicy is what a call on a kept connection costs beside one by a plain transport.
func BenchmarkPolicy(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	plain := &http.Transport{MaxConnsPerHost: 64, MaxIdleConnsPerHost: 64, DisableCompression: true}
	policed := NewTransport(Options{Policy: Policy{AllowHTTP: true, Networks: networks("loopback")}})
	for _, c := range []struct {
		name   string
		client *http.Client
	}{
		{"plain transport", &http.Client{Transport: plain}},
		{"policy", &http.Client{Transport: policed}},
		{"plain client with timeout", &http.Client{Transport: plain, Timeout: 10e9}},
		{"policy and NewClient", NewClient(policed, 10e9)},
	} {
		b.Run(c.name, func(b *testing.B) {
			if _, err := post(c.client, server.URL); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := post(c.client, server.URL); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	plain.CloseIdleConnections()
	policed.CloseIdleConnections()
}

// BenchmarkDialCheck is what the policy costs for a new connection.
func BenchmarkDialCheck(b *testing.B) {
	policy := Policy{Networks: networks("private", "loopback")}
	b.ReportAllocs()
	for b.Loop() {
		if err := policy.control(b.Context(), "tcp6", "[2a00:1450:4001:82a::200e]:443", nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckURL(b *testing.B) {
	policy := Policy{Networks: networks("private", "loopback")}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := policy.CheckURL("https://hooks.example.com:8443/in?token=abc"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAuthorize is what kept credentials cost per call.
func BenchmarkAuthorize(b *testing.B) {
	for name, a := range map[string]Auth{"basic": must(NewAuth(AuthConfig{Type: "basic", Username: "u", Password: "p"}, nil, &Policy{})), "oauth2": (&endpoint{expires: 3600}).auth()} {
		b.Run(name, func(b *testing.B) {
			r := request()
			b.ReportAllocs()
			for b.Loop() {
				if err := a.Authorize(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
