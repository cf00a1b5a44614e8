package mock

import (
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
)

// UnmarshalCaddyfile reads:
//
//	endpoint mock {
//		message_interval <duration>
//		message_content  <text>
//		message_count    <number>
//		header           <name> <value>
//		metadata         <name> <value>
//		loopback         [on|off]
//	}
//
// header and metadata may stand several times.
func (m *Mock) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the type's name
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "endpoint mock",
		parse.Option{Name: "message_interval", Set: m.setInterval},
		parse.Option{Name: "message_content", Set: m.setContent},
		parse.Option{Name: "message_count", Set: m.setCount},
		parse.Pairs("header", func(name, value string) { m.Header = append(m.Header, Pair{name, value}) }),
		parse.Pairs("metadata", func(name, value string) { m.Metadata = append(m.Metadata, Pair{name, value}) }),
		parse.Flag("loopback", &m.Loopback),
	)
}

// The bounds are checked here too, because Validate can't name a line.

func (m *Mock) setInterval(d *caddyfile.Dispenser) error {
	var interval caddy.Duration
	if err := parse.Duration("message_interval", &interval).Set(d); err != nil {
		return err
	}
	if interval < caddy.Duration(MinInterval) {
		return d.Errf("message_interval %q: use at least %s", d.Val(), MinInterval)
	}
	m.MessageInterval = &interval
	return nil
}

func (m *Mock) setContent(d *caddyfile.Dispenser) error {
	var content string
	if err := parse.String("message_content", &content).Set(d); err != nil {
		return err
	}
	if len(content) > MaxContent {
		return d.Errf("message_content has %d bytes: use at most %d", len(content), MaxContent)
	}
	m.MessageContent = &content
	return nil
}

func (m *Mock) setCount(d *caddyfile.Dispenser) error {
	var text string
	if err := parse.String("message_count", &text).Set(d); err != nil {
		return err
	}
	count, err := strconv.ParseInt(text, 10, 64)
	if err != nil || count < 1 {
		return d.Errf("message_count %q is not a whole number of at least 1", text)
	}
	m.MessageCount = &count
	return nil
}

var _ caddyfile.Unmarshaler = (*Mock)(nil)
