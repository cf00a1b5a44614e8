package envelope

import (
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

var idForm = regexp.MustCompile(`^msg_[A-Z2-7]{26}$`)

// variant is a delivery that differs from base in one thing.
type variant struct {
	name   string
	api    string
	change func(d *message.Delivery)
}

func identify(v variant, base func() *message.Delivery) (fingerprint, id string) {
	api := "orders"
	if v.api != "" {
		api = v.api
	}
	d := base()
	if v.change != nil {
		v.change(d)
	}
	return Identify(api, d)
}

// again are changes from delivery to delivery of one message.
var again = []variant{
	{name: "again"},
	{name: "attempt", change: func(d *message.Delivery) { d.Attempt = 7 }},
	{name: "epoch", change: func(d *message.Delivery) { d.Epoch = 9 }},
	{name: "metadata", change: func(d *message.Delivery) { d.Metadata = []message.Field{message.Flag("redelivered", true)} }},
	{name: "count", change: func(d *message.Delivery) { d.Headers = append(d.Headers, headersOf("x-delivery-count", "2")...) }},
	{name: "deaths", change: func(d *message.Delivery) {
		d.Headers = append(d.Headers, headersOf("x-death", "[]", "x-first-death-queue", "q", "x-last-death-reason", "expired")...)
	}},
}

func byPositionDelivery() *message.Delivery { return order() }

func byNameDelivery() *message.Delivery {
	d := order()
	d.Mark = message.Mark{}
	return d
}

func byContentDelivery() *message.Delivery {
	d := byNameDelivery()
	d.ID = ""
	return d
}

func TestIdentityIsStable(t *testing.T) {
	for name, base := range map[string]func() *message.Delivery{"position": byPositionDelivery, "id": byNameDelivery, "content": byContentDelivery} {
		fingerprint, id := identify(variant{}, base)
		if !idForm.MatchString(id) {
			t.Errorf("by %s: %q", name, id)
		}
		for _, v := range again {
			f, i := identify(v, base)
			if f != fingerprint {
				t.Errorf("by %s, %s: the fingerprint changes", name, v.name)
			}
			if stable := i == id; stable != (name != "content") {
				t.Errorf("by %s, %s: id is the same: %v", name, v.name, stable)
			}
		}
	}
}

// What is asserted here is kept by receivers: a change makes everything that is on its way
// look new.
func TestIdentityOutlivesReleases(t *testing.T) {
	for _, c := range []struct {
		d    *message.Delivery
		want string
	}{
		{byPositionDelivery(), "msg_WL5OISH65XZMUF4F75RWUEYM2I"},
		{byNameDelivery(), "msg_55IGUU6Z74STIKBZHESQUIPPYI"},
	} {
		if _, id := Identify("orders", c.d); id != c.want {
			t.Errorf("%s, want %s", id, c.want)
		}
	}
	if fingerprint, _ := Identify("orders", byContentDelivery()); fingerprint != "sum_6UMRYDOYE3TGWGNUQUMBZKJGSB" {
		t.Errorf("%s", fingerprint)
	}
}

func TestDifferentMessagesDiffer(t *testing.T) {
	for _, c := range []struct {
		name string
		base func() *message.Delivery
		all  []variant
	}{
		{"position", byPositionDelivery, []variant{
			{name: "api", api: "others"},
			{name: "channel", change: func(d *message.Delivery) { d.Mark.Channel = "order" }},
			{name: "partition", change: func(d *message.Delivery) { d.Mark.Partition++ }},
			{name: "offset", change: func(d *message.Delivery) { d.Mark.Next++ }},
			{name: "a topic made anew", change: func(d *message.Delivery) { d.Mark.Time++ }},
		}},
		{"id", byNameDelivery, []variant{
			{name: "api", api: "others"},
			{name: "lane", change: func(d *message.Delivery) { d.Lane = "orders-1" }},
			{name: "id", change: func(d *message.Delivery) { d.ID += "0" }},
			{name: "an id that is used again", change: func(d *message.Delivery) { d.Payload = []byte("another") }},
			{name: "an id that is used again, for another key", change: func(d *message.Delivery) { d.Key = nil }},
			{name: "the border between lane and id", change: func(d *message.Delivery) { d.Lane, d.ID = d.Lane+d.ID[:1], d.ID[1:] }},
			{name: "the border between api and lane", api: "order", change: func(d *message.Delivery) { d.Lane = "s" + d.Lane }},
		}},
		{"content", byContentDelivery, []variant{
			{name: "api", api: "others"},
			{name: "lane", change: func(d *message.Delivery) { d.Lane = "orders-1" }},
			{name: "payload", change: func(d *message.Delivery) { d.Payload = append(slices.Clone(d.Payload), 0) }},
			{name: "no payload", change: func(d *message.Delivery) { d.Payload = nil }},
			{name: "key", change: func(d *message.Delivery) { d.Key = []byte("customer-18") }},
			{name: "time", change: func(d *message.Delivery) { d.Time = d.Time.Add(time.Millisecond) }},
			{name: "header", change: func(d *message.Delivery) { d.Headers = headersOf("content-type", "text/plain") }},
			{name: "border in a header", change: func(d *message.Delivery) { d.Headers = headersOf("content-typea", "pplication/json") }},
		}},
	} {
		seen := map[string]string{}
		for _, v := range append([]variant{{name: "itself"}}, c.all...) {
			fingerprint, id := identify(v, c.base)
			if before, twice := seen[fingerprint]; twice {
				t.Errorf("by %s: %s and %s have one fingerprint", c.name, v.name, before)
			}
			seen[fingerprint] = v.name
			if c.name == "content" == (fingerprint == id) {
				t.Errorf("by %s: fingerprint %s and id %s", c.name, fingerprint, id)
			}
		}
	}
}

func TestCheckID(t *testing.T) {
	for _, id := range []string{"", "a.b", "a b", "a\r\nb", "ä", string(make([]byte, 200))} {
		if checkID(id) == nil {
			t.Errorf("%q is allowed", id)
		}
	}
	if err := checkID("msg_p5jXN8AQM9LWM0D4loKWxJek-1"); err != nil {
		t.Error(err)
	}
}
