package websocket

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestCaddyfile(t *testing.T) {
	for _, c := range []struct{ name, input, want string }{
		{"nothing", `websocket`, `{}`},
		{"everything", `websocket {
			qos at_least_once
			publisher off
			subscriber
			frames binary
			max_message 1MiB
			ping 1m
			from earliest
			via orders
			fallback spare
		}`, `{"qos":"at_least_once","via":"orders","fallback":"spare","from":"earliest","publisher":false,` +
			`"subscriber":true,"frames":"binary","max_message":1048576,"ping":60000000000}`},
		{"ping off", "websocket {\nping off\n}", `{"ping":0}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := new(Entrypoint)
			if err := e.UnmarshalCaddyfile(caddyfile.NewTestDispenser(c.input)); err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(e)
			if err != nil || string(got) != c.want {
				t.Errorf("got  %s (%v)\nwant %s", got, err, c.want)
			}
			var back Entrypoint
			if err := caddy.StrictUnmarshalJSON(got, &back); err != nil {
				t.Errorf("its own JSON is not accepted: %v", err)
			}
		})
	}
}

func TestCaddyfileErrors(t *testing.T) {
	for _, c := range []struct{ input, want string }{
		{"websocket on", `takes no value here: "on"`},
		{"websocket {\nframe text\n}", `unknown option "frame" in entrypoint websocket: use fallback, frames, from, max_message, ping, publisher, qos, subscriber, via`},
		{"websocket {\nping 1s\nping 2s\n}", `stands twice, first on line 2`},
		{"websocket {\nframes jpeg\n}", `frames "jpeg": use auto, text, binary`},
		{"websocket {\nmax_message 0\n}", `is not a size`},
		{"websocket {\nping -1s\n}", `is not a duration`},
		{"websocket {\npublisher maybe\n}", `use on or off`},
		{"websocket {\nqos exactly_once\n}", `unknown qos "exactly_once"`},
		{"websocket {\nfrom yesterday\n}", `use latest, earliest, client`},
	} {
		err := new(Entrypoint).UnmarshalCaddyfile(caddyfile.NewTestDispenser(c.input))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "Testfile:") {
			t.Errorf("%q: %v, want %q and a place", c.input, err, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	off := new(bool)
	for _, c := range []struct {
		name   string
		change func(*Entrypoint)
		want   string
	}{
		{"both off", func(e *Entrypoint) { e.Publisher, e.Subscriber = off, off }, "turn one on"},
		{"frames", func(e *Entrypoint) { e.Frames = "jpeg" }, "use auto, text or binary"},
		{"size", func(e *Entrypoint) { e.MaxMessage = -1 }, "not a size"},
		{"ping", func(e *Entrypoint) { d := caddy.Duration(-1); e.Ping = &d }, "use a positive duration, or off"},
		{"level", func(e *Entrypoint) { e.Subscriber, e.QoS = off, message.AtLeastOnce }, "qos at_least_once is about reading"},
		{"from", func(e *Entrypoint) { e.Subscriber, e.From = off, "latest" }, "from latest is about reading"},
	} {
		e := new(Entrypoint)
		c.change(e)
		if err := e.Provision(caddy.Context{}); err != nil {
			t.Fatal(err)
		}
		if err := e.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestDefaultsAndNeeds(t *testing.T) {
	e := provisioned(t, nil)
	if e.MaxMessage != 256<<10 || e.ping != 25*time.Second || e.Frames != "auto" {
		t.Errorf("defaults: %d, %s, %s", e.MaxMessage, e.ping, e.Frames)
	}
	n := e.Needs()
	if !n.Publish || !n.Subscribe || !n.Acks || n.Resume || len(n.Levels) != 4 || n.Type != "websocket" {
		t.Errorf("needs: %+v", n)
	}
	n = provisioned(t, func(e *Entrypoint) {
		e.Publisher, e.Via, e.Fallback, e.From, e.QoS = new(bool), "a", "b", "client", message.AtMostOnce
	}).Needs()
	if n.Publish || !n.Subscribe || n.Via != "a" || n.Fallback != "b" || n.From != "client" || n.QoS != message.AtMostOnce {
		t.Errorf("needs: %+v", n)
	}
	if id := e.CaddyModule().ID; id != "message_api.entrypoints.websocket" {
		t.Error(id)
	}
}
