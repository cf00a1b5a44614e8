package solace

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
)

// UnmarshalCaddyfile reads
//
//	endpoint solace {
//		url  <tcp://host:55555 | tcps://host:55443>…
//		vpn  <name>
//		auth <user> <password>
//		tls {
//			ca_file <file>
//			cert    <file>
//			key     <file>
//			server_name <name>
//			insecure_skip_verify
//		}
//		idle <duration>
//		producer {
//			topics         <topic> [<topic>…]
//			delivery       direct|persistent
//			key            <text>
//			message_id     <text>
//			correlation_id <text>
//			priority       <number>
//			time_to_live   <duration>
//			dead_letter    on|off
//		}
//		consumer {
//			topics    <topic> [<topic>…]
//			queue     <name>
//			shared
//			prefetch  <number>
//			provision on|off
//			quota     <size>
//			max_redeliveries <number>
//			payload   typed|raw
//			dead_letter
//		}
//	}
func (s *Solace) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if errBuild != nil {
		return d.WrapErr(errBuild)
	}
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "endpoint solace",
		parse.Strings("url", &s.URL),
		parse.String("vpn", &s.VPN),
		options.ParseTLS(&s.TLS),
		options.ParseAuth(&s.Auth),
		parse.Duration("idle", &s.Idle),
		parse.Option{Name: "producer", Set: s.unmarshalProducer},
		parse.Option{Name: "consumer", Set: s.unmarshalConsumer},
	)
}

func (s *Solace) unmarshalProducer(d *caddyfile.Dispenser) error {
	p := new(Producer)
	s.Producer = p
	return parse.Nested("producer",
		parse.Strings("topics", &p.Topics),
		parse.OneOf("delivery", &p.Delivery, direct, persistent),
		parse.String("key", &p.Key),
		parse.String("message_id", &p.MessageID),
		parse.String("correlation_id", &p.CorrelationID),
		parse.Option{Name: "priority", Set: func(d *caddyfile.Dispenser) error {
			p.Priority = new(int)
			return parse.Int("priority", p.Priority, 0).Set(d)
		}},
		parse.Duration("time_to_live", &p.TimeToLive),
		parse.OptionalFlag("dead_letter", &p.DeadLetter),
	).Set(d)
}

func (s *Solace) unmarshalConsumer(d *caddyfile.Dispenser) error {
	c := new(Consumer)
	s.Consumer = c
	return parse.Nested("consumer",
		parse.Strings("topics", &c.Topics),
		parse.String("queue", &c.Queue),
		parse.Flag("shared", &c.Shared),
		parse.Int("prefetch", &c.Prefetch, 1),
		parse.OptionalFlag("provision", &c.Provision),
		parse.Size("quota", &c.Quota),
		parse.Int("max_redeliveries", &c.MaxRedeliveries, 1),
		parse.OneOf("payload", &c.Payload, asTyped, raw),
		parse.Flag("dead_letter", &c.DeadLetter),
	).Set(d)
}

var _ caddyfile.Unmarshaler = (*Solace)(nil)
