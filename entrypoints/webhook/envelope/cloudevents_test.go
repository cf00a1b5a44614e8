package envelope

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// attributes are the headers of a request that belong to the event.
func attributes(r *http.Request) map[string]string {
	all := map[string]string{}
	for name, values := range r.Header {
		if short, ok := strings.CutPrefix(strings.ToLower(name), "ce-"); ok {
			all[short] = strings.Join(values, "|")
		}
	}
	return all
}

func TestCloudEvents(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 30, 0, 5e8, time.FixedZone("", 3600))
	made := map[string]string{"specversion": "1.0", "id": testID, "source": "/orders%20of/%C3%A4", "type": "order", "time": "2026-11-21T11:30:00.5Z"}
	kafka := headersOf("ce_specversion", "1.0", "ce_id", "17", "ce_source", "/shop", "ce_type", "sold", "ce_time", "2026-01-01T00:00:00Z",
		"ce_subject", "Euro € 😀", "ce_dataschema", "http://x/s", "ce_tenant", "a\"b%c", "content-type", "application/json")
	kept := map[string]string{"specversion": "1.0", "id": "17", "source": "/shop", "type": "sold", "time": "2026-01-01T00:00:00Z",
		"subject": "Euro%20%E2%82%AC%20%F0%9F%98%80", "dataschema": "http://x/s", "tenant": "a%22b%25c"}
	rename := func(prefix string) []message.Header {
		all := slices.Clone(kafka)
		for i := range all {
			if short, ok := strings.CutPrefix(all[i].Name, "ce_"); ok {
				all[i].Name = prefix + short
			}
		}
		return all
	}
	without := func(all map[string]string, names ...string) map[string]string {
		some := map[string]string{}
		for name, value := range all {
			if !slices.Contains(names, name) {
				some[name] = value
			}
		}
		return some
	}
	with := func(all map[string]string, name, value string) map[string]string {
		some := without(all)
		some[name] = value
		return some
	}
	http1 := headersOf("Ce-Specversion", "1.0", "Ce-Id", "17", "Ce-Source", "/shop", "Ce-Type", "sold", "Ce-Time", "2026-01-01T00:00:00Z",
		"Ce-Subject", "Euro%20%e2%82%ac%20😀", "Ce-Dataschema", "http://x/s", "Ce-Tenant", "a%22b%25c")
	for _, c := range []struct {
		name    string
		m       message.Message
		want    map[string]string
		media   string
		dropped []string
	}{
		{name: "made", m: message.Message{Time: at}, want: made},
		{name: "made, time unknown", want: without(made, "time")},
		{name: "made, time absurd", m: message.Message{Time: time.UnixMilli(1 << 60)}, want: without(made, "time")},
		{name: "Kafka's", m: message.Message{Headers: kafka, Time: at}, want: kept, media: "application/json"},
		{name: "AMQP's", m: message.Message{Headers: rename("cloudEvents:")}, want: kept, media: "application/json"},
		{name: "AMQP's as JMS wants it", m: message.Message{Headers: rename("cloudEvents_")}, want: kept, media: "application/json"},
		{name: "HTTP's", m: message.Message{Headers: http1}, want: kept},
		{name: "HTTP's, wrongly encoded", m: message.Message{Headers: headersOf("ce-specversion", "1.0", "ce-subject", "100%")}, want: with(without(made, "time"), "subject", "100%25")},
		{name: "MQTT's", m: message.Message{Headers: headersOf("specversion", "1.0", "id", "17", "source", "/shop", "type", "sold", "subject", "a b", "mine", "x"), Time: at},
			want: map[string]string{"specversion": "1.0", "id": "17", "source": "/shop", "type": "sold", "subject": "a%20b"}},
		{name: "nearly MQTT's", m: message.Message{Headers: headersOf("specversion", "1.0", "id", "17", "id", "18", "type", "sold"), Time: at}, want: made},
		{name: "no event", m: message.Message{Headers: headersOf("ce_id", "17", "ce_x", "y"), Time: at}, want: made},
		{name: "an old event", m: message.Message{Headers: headersOf("ce_specversion", "0.3", "ce_id", "17"), Time: at}, want: made},
		{name: "incomplete", m: message.Message{Headers: headersOf("ce_specversion", "1.0", "ce_id", "", "ce_source", "/shop"), Time: at},
			want: with(without(made, "time"), "source", "/shop")},
		{name: "not allowed in events", m: message.Message{Headers: headersOf("ce_specversion", "1.0", "ce_type", "a\x00b", "ce_a-b", "1", "ce_data", "2", "ce_x", "\xff", "ce_y", "1", "ce_y", "2")},
			want: with(without(made, "time"), "y", "1"), dropped: []string{"ce_type", "ce_a-b", "ce_data", "ce_x", "ce_y"}},
		{name: "required, and too long", m: message.Message{Headers: headersOf("ce_specversion", "1.0", "ce_id", strings.Repeat("x", 2000))},
			want: without(made, "time"), dropped: []string{"ce_id"}},
		{name: "structured", m: message.Message{Headers: headersOf("content-type", "Application/CloudEvents+json; charset=utf-8", "ce_id", "17")},
			want: map[string]string{}, media: "Application/CloudEvents+json; charset=utf-8"},
	} {
		var dropped []string
		opt := Options{CloudEvents: &CloudEvents{Source: "/orders of/ä", Type: "order"}, Dropped: func(name string) { dropped = append(dropped, name) }}
		r := request(t, opt, &c.m)
		got := attributes(r)
		for name, want := range c.want {
			if got[name] != want {
				t.Errorf("%s: %s is %q, want %q", c.name, name, got[name], want)
			}
		}
		for name := range got {
			if _, ok := c.want[name]; !ok {
				t.Errorf("%s: %s is %q, and nobody wants it", c.name, name, got[name])
			}
		}
		if media := r.Header.Get("content-type"); c.media != "" && media != c.media {
			t.Errorf("%s: content type %q", c.name, media)
		}
		slices.Sort(dropped)
		slices.Sort(c.dropped)
		if !slices.Equal(dropped, c.dropped) {
			t.Errorf("%s: dropped %q, want %q", c.name, dropped, c.dropped)
		}
	}
}

// Without CloudEvents, attributes are headers like others: they go out when they are asked for.
func TestEventsArePassedOn(t *testing.T) {
	m := &message.Message{Headers: headersOf("ce_id", "1", "ce-id", "a%20b")}
	if got := attributes(request(t, Options{}, m)); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if got := attributes(request(t, Options{Allow: []string{"ce-id"}}, m)); len(got) != 1 || got["id"] != "a%20b" {
		t.Errorf("%v", got)
	}
}

// Attributes that are asked for as headers, in what is no event, are left out and told.
func TestStrayAttributes(t *testing.T) {
	var dropped []string
	opt := Options{
		Allow: []string{"*"}, CloudEvents: &CloudEvents{Source: "/s", Type: "t"},
		Dropped: func(name string) { dropped = append(dropped, name) },
	}
	r := request(t, opt, &message.Message{Headers: headersOf("ce_id", "1", "ce-foo", "2", "id", "3")})
	if got := attributes(r); got["id"] != testID || got["foo"] != "" || r.Header.Get("id") != "3" {
		t.Errorf("%v", r.Header)
	}
	if !slices.Equal(dropped, []string{"ce_id", "ce-foo"}) {
		t.Errorf("dropped %q", dropped)
	}
}

func FuzzAttribute(f *testing.F) {
	f.Add("Euro € 😀")
	f.Add("%C0%A0\"\\")
	f.Fuzz(func(t *testing.T, value string) {
		encoded := encodeAttribute(value)
		for i := range len(encoded) {
			if c := encoded[i]; c <= ' ' || c > '~' || c == '"' {
				t.Fatalf("%q is encoded as %q", value, encoded)
			}
		}
		if got := decodeAttribute(encoded); got != value {
			t.Fatalf("%q comes back as %q", value, got)
		}
	})
}
