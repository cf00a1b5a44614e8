package rabbitmq

import (
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
)

// UnmarshalCaddyfile reads
//
//	endpoint rabbitmq {
//		server       <host:port> [<host:port>…]
//		virtual_host <name>
//		tls {
//			ca_file <file>
//			cert    <file>
//			key     <file>
//			server_name <name>
//			insecure_skip_verify
//		}
//		auth      <user> <password>
//		heartbeat <duration>
//		idle      <duration>
//		producer {
//			exchange <name> [<type>] {
//				durable     on|off
//				auto_delete on|off
//				declare     on|off
//				argument    <name> <value>
//			}
//			routing_key <text>
//			persistent  on|off
//			mandatory   on|off
//		}
//		consumer {
//			exchange    <name> [<type>] { … }
//			routing_key <text> [<text>…]
//			queue <name> {
//				type        classic|quorum|stream
//				durable     on|off
//				auto_delete on|off
//				declare     on|off
//				argument    <name> <value>
//			}
//			shared
//			prefetch   <number>
//			queue_type classic|quorum
//			expires    <duration>
//			dead_letter_exchange <name>
//			delivery_limit       <number>
//			argument   <name> <value>
//		}
//	}
func (r *RabbitMQ) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "endpoint rabbitmq",
		parse.Strings("server", &r.Server),
		parse.String("virtual_host", &r.VirtualHost),
		options.ParseTLS(&r.TLS),
		options.ParseAuth(&r.Auth),
		parse.Duration("heartbeat", &r.Heartbeat),
		parse.Duration("idle", &r.Idle),
		parse.Option{Name: "producer", Set: r.unmarshalProducer},
		parse.Option{Name: "consumer", Set: r.unmarshalConsumer},
	)
}

func (r *RabbitMQ) unmarshalProducer(d *caddyfile.Dispenser) error {
	p := new(Producer)
	r.Producer = p
	return parse.Nested("producer",
		parseExchange(&p.Exchange),
		parse.String("routing_key", &p.RoutingKey),
		parse.OptionalFlag("persistent", &p.Persistent),
		parse.OptionalFlag("mandatory", &p.Mandatory),
	).Set(d)
}

func (r *RabbitMQ) unmarshalConsumer(d *caddyfile.Dispenser) error {
	c := new(Consumer)
	r.Consumer = c
	return parse.Nested("consumer",
		parseExchange(&c.Exchange),
		parse.Strings("routing_key", &c.RoutingKey),
		parse.Option{Name: "queue", Set: c.unmarshalQueue},
		parse.Flag("shared", &c.Shared),
		parse.Int("prefetch", &c.Prefetch, 1),
		parse.OneOf("queue_type", &c.QueueType, classic, quorum),
		parse.Duration("expires", &c.Expires),
		parse.String("dead_letter_exchange", &c.DeadLetterExchange),
		parse.Int("delivery_limit", &c.DeliveryLimit, 1),
		arguments(&c.Argument),
	).Set(d)
}

// parseExchange reads `exchange <name> [<type>] { … }`.
func parseExchange(into **Exchange) parse.Option {
	return parse.Option{Name: "exchange", Set: func(d *caddyfile.Dispenser) error {
		args := d.RemainingArgs()
		if len(args) < 1 || len(args) > 2 {
			return d.Errf("option %q needs a name (which may be \"\" in a producer), and may have a type", "exchange")
		}
		x := &Exchange{Name: args[0]}
		*into = x
		if len(args) == 2 {
			x.Type = args[1]
		}
		return parse.Block(d, "exchange",
			parse.OptionalFlag("durable", &x.Durable),
			parse.Flag("auto_delete", &x.AutoDelete),
			parse.OptionalFlag("declare", &x.Declare),
			arguments(&x.Argument),
		)
	}}
}

// unmarshalQueue reads `queue <name> { … }`.
func (c *Consumer) unmarshalQueue(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 1 {
		return d.Errf("option %q needs one name; its type stands in its block", "queue")
	}
	q := &Queue{Name: args[0]}
	c.Queue = q
	return parse.Block(d, "queue",
		parse.OneOf("type", &q.Type, classic, quorum, stream),
		parse.OptionalFlag("durable", &q.Durable),
		parse.Flag("auto_delete", &q.AutoDelete),
		parse.OptionalFlag("declare", &q.Declare),
		arguments(&q.Argument),
	)
}

// arguments reads `argument <name> <value>`, whole numbers and true and false as such.
func arguments(into *map[string]any) parse.Option {
	return parse.Pairs("argument", func(name, text string) {
		if *into == nil {
			*into = make(map[string]any)
		}
		var value any = text
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			value = n
		} else if text == "true" || text == "false" {
			value = text == "true"
		}
		(*into)[name] = value
	})
}

var _ caddyfile.Unmarshaler = (*RabbitMQ)(nil)
