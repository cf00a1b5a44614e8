package examples

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// The MQTT example on a Mosquitto of its own, with Mosquitto's own clients at the other
// end, as its README says.
func TestMQTT(t *testing.T) {
	broker := brokers.Mosquitto(t)
	t.Setenv("MQTT_SERVER", broker.Addr())
	g := serve(t, "mqtt", ":8080 {", ":PORT {")
	host, port, err := net.SplitHostPort(broker.Addr())
	if err != nil {
		t.Fatal(err)
	}
	d := read(t, g, "examples/mqtt/README.md", "", "-h localhost -p 1883", "-h "+host+" -p "+port)
	t.Run("sensors", func(t *testing.T) { sensors(t, d, broker) })
	t.Run("alarms", func(t *testing.T) { alarms(t, g, d) })
	healthy(t, d.run("curl http://localhost:8080/healthz"), "sensors", "alarms", "mqtt5")
}

func sensors(t *testing.T, d *doc, broker *brokers.MosquittoServer) {
	d.run("mosquitto_pub -V 5 -h localhost -p 1883 -t sensors/kitchen -q 1 -r -m 21.5")
	live := brokers.MosquittoSub(t, broker.Addr(), "sensors/cellar")
	watch := d.start("curl -N -H 'Accept: text/event-stream' http://localhost:8080/sensors")
	watch.expect(commandTimeout, "data: 21.5\n")
	if a := d.answer("curl -i -d '18.0' 'http://localhost:8080/sensors?room=cellar'"); a.Status != 202 {
		t.Fatalf("posting: %+v", a)
	}
	watch.expect(commandTimeout, "data: 18.0\n")
	watch.expect(commandTimeout, ":topic: sensors/cellar\n")
	if m := live.Next(); string(m.Payload) != "18.0" || m.QoS != 1 {
		t.Errorf("mosquitto_sub received %+v", m)
	}
	// Who joins the running subscription gets the retained messages as well.
	late := d.start("curl -N -H 'Accept: text/event-stream' http://localhost:8080/sensors")
	late.expect(commandTimeout, "data: 21.5\n")
	late.expect(commandTimeout, "data: 18.0\n")
	both := d.run("mosquitto_sub -V 5 -h localhost -p 1883 -t 'sensors/+' -C 2 -v")
	for _, want := range []string{"sensors/kitchen 21.5\n", "sensors/cellar 18.0\n"} {
		if !strings.Contains(both, want) {
			t.Errorf("mosquitto_sub has no %q: %s", want, both)
		}
	}
}

func alarms(t *testing.T, g *gateway.Gateway, d *doc) {
	guard := func() *websocket.Conn {
		return gateway.OpenSocket(t, g, g.URL("/alarms"), []string{"message-api.v1+json"}, "X-Gravitee-Client-Identifier", "guard-1")
	}
	ws := guard()
	if a := d.answer("curl -i -d 'fire' http://localhost:8080/alarms"); a.Status != 202 {
		t.Fatalf("posting: %+v", a)
	}
	m := frame(t, ws)
	if m.Content != "fire" || m.Metadata["topic"] != "alarms" {
		t.Errorf("the guard received %+v", m)
	}
	acknowledge(t, ws, m)
	if err := ws.Close(); err != nil {
		t.Error(err)
	}
	// What comes while the guard is away waits, and was not acknowledged for nothing.
	d.run("mosquitto_pub -V 5 -h localhost -p 1883 -t alarms -q 1 -m flood")
	back := guard()
	m = frame(t, back)
	for m.Content == "fire" { // its acknowledgement may have been cut off with the connection
		acknowledge(t, back, m)
		m = frame(t, back)
	}
	if m.Content != "flood" {
		t.Errorf("the guard received %+v", m)
	}
}

// message is a frame of the sub-protocol.
type message struct {
	Type     string
	Seq      int
	Content  string
	Metadata map[string]any
}

// frame reads the next message.
func frame(t *testing.T, ws *websocket.Conn) message {
	t.Helper()
	var m message
	if err := ws.SetReadDeadline(time.Now().Add(commandTimeout)); err != nil {
		t.Fatal(err)
	}
	if err := ws.ReadJSON(&m); err != nil {
		t.Fatal(err)
	}
	if m.Type != "message" {
		t.Fatalf("the gateway sent %+v", m)
	}
	return m
}

func acknowledge(t *testing.T, ws *websocket.Conn, m message) {
	t.Helper()
	if err := ws.WriteJSON(map[string]any{"type": "ack", "seq": m.Seq}); err != nil {
		t.Fatal(err)
	}
}

// one runs a command that brings one message.
func one(t *testing.T, d *doc, command, want string) gateway.Page {
	t.Helper()
	p := page(t, d.run(command))
	if len(p.Items) != 1 || p.Items[0].Content != want {
		t.Fatalf("%s: %+v", command, p)
	}
	return p
}

// page reads what a GET without -i has printed.
func page(t *testing.T, body string) gateway.Page {
	t.Helper()
	var p gateway.Page
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return p
}
