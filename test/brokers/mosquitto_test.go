package brokers

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

// A session and its queued messages, and retained messages, outlive a power cut.
func TestMosquittoKeepsWhatItAcknowledgedThroughKill(t *testing.T) {
	broker := Mosquitto(t)
	session := []string{"-i", "keeper", "-c"}
	MosquittoSub(t, broker.Addr(), "queue/#", session...).Close()
	for round := range 3 {
		MosquittoPub(t, broker.Addr(), "queue/1", fmt.Appendf(nil, "before kill %d", round))
		MosquittoPub(t, broker.Addr(), "state", fmt.Appendf(nil, "state %d", round), "-r")
		broker.Save()
		broker.Kill()
		began := time.Now()
		broker.Restart()
		t.Logf("accepts connections %v after kill -9", time.Since(began).Round(time.Millisecond))
	}
	kept := MosquittoSub(t, broker.Addr(), "queue/#", session...)
	for round := range 3 {
		if got, want := string(kept.Next().Payload), fmt.Sprintf("before kill %d", round); got != want {
			t.Errorf("message %d is %q, want %q", round, got, want)
		}
	}
	if m := MosquittoSub(t, broker.Addr(), "state").Next(); string(m.Payload) != "state 2" || !m.Retained {
		t.Errorf("the retained message is %+v", m)
	}
	if !strings.Contains(broker.Log(), "as keeper") {
		t.Errorf("its log does not tell who has connected:\n%s", broker.Log())
	}
}

func TestMosquittoStopsInOrder(t *testing.T) {
	broker := Mosquitto(t)
	MosquittoPub(t, broker.Addr(), "state", []byte("kept"), "-r")
	broker.Stop()
	broker.Restart()
	if m := MosquittoSub(t, broker.Addr(), "state").Next(); string(m.Payload) != "kept" {
		t.Errorf("after a restart the retained message is %q", m.Payload)
	}
}

func TestVolatileMosquittoForgets(t *testing.T) {
	broker := VolatileMosquitto(t)
	MosquittoPub(t, broker.Addr(), "state", []byte("old"), "-r")
	broker.Kill()
	broker.Restart()
	MosquittoPub(t, broker.Addr(), "state/new", []byte("new"), "-r")
	if m := MosquittoSub(t, broker.Addr(), "state/#").Next(); string(m.Payload) != "new" {
		t.Errorf("after a kill %q is retained", m.Payload)
	}
}

func TestMosquittoClientsKeepEveryByte(t *testing.T) {
	addr := SharedMosquitto(t).Plain
	topic := UniqueName(t) + "/a"
	sub := MosquittoSub(t, addr, topic)
	binary := []byte{0, 0xff, '\t', '\n', 0x80, ' ', 'x'}
	MosquittoPub(t, addr, topic, binary,
		"-D", "publish", "user-property", "a", "1", "-D", "publish", "user-property", "a", "2",
		"-D", "publish", "content-type", "x/y", "-D", "publish", "response-topic", "answers/1",
		"-D", "publish", "correlation-data", "id 7", "-D", "publish", "message-expiry-interval", "30")
	got := sub.Next()
	want := MosquittoMessage{
		Topic: topic, Payload: binary, QoS: 1, ContentType: "x/y", ResponseTopic: "answers/1",
		CorrelationData: "id 7", MessageExpiry: "30", UserProperties: "a:1 a:2",
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("received %+v\nwant     %+v", got, want)
	}
	MosquittoPubLines(t, addr, topic, []byte("one\ntwo\nthree\n"))
	for _, want := range []string{"one", "two", "three"} {
		if m := sub.Next(); string(m.Payload) != want {
			t.Errorf("received %q, want %q", m.Payload, want)
		}
	}
}

func TestSharedMosquittoListeners(t *testing.T) {
	l := SharedMosquitto(t)
	topic := UniqueName(t)
	certs := l.Certificates
	sub := MosquittoSub(t, l.Plain, topic)
	for what, login := range map[string]struct {
		addr string
		args []string
	}{
		"TLS":        {l.TLS, []string{"--cafile", certs.CA}},
		"mutual TLS": {l.MutualTLS, []string{"--cafile", certs.CA, "--cert", certs.ClientCert, "--key", certs.ClientKey}},
		"password":   {l.Auth, []string{"-u", server.User, "-P", server.Password}},
	} {
		MosquittoPub(t, login.addr, topic, []byte(what), login.args...)
		if m := sub.Next(); string(m.Payload) != what {
			t.Errorf("by %s arrives %q", what, m.Payload)
		}
	}
	for what, login := range map[string]struct {
		addr string
		args []string
	}{
		"without certificate": {l.MutualTLS, []string{"--cafile", certs.CA}},
		"without password":    {l.Auth, nil},
		"with a wrong one":    {l.Auth, []string{"-u", server.User, "-P", "guess"}},
		"as the stranger":     {l.Auth, []string{"-u", server.Stranger, "-P", server.Password}},
	} {
		args := append([]string{"-t", topic, "-q", "1", "-m", "x"}, login.args...)
		if err := tryMosquittoPub(t, login.addr, nil, args); err == nil {
			t.Errorf("%s one can publish", what)
		}
	}
}

// Mosquitto's own clients know no WebSockets.
func TestSharedMosquittoTakesWebSockets(t *testing.T) {
	l := SharedMosquitto(t)
	config, err := server.ClientTLS(l.Certificates)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	for _, url := range []string{"http://" + l.WS, "https://" + l.WSS} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header = http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-WebSocket-Version": {"13"},
			"Sec-WebSocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Sec-WebSocket-Protocol": {"mqtt"},
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Error(err)
		}
		if response.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("%s answers %s", url, response.Status)
		}
	}
}
