package kafka

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
)

// UnmarshalCaddyfile reads
//
//	endpoint kafka {
//		brokers <host:port> [<host:port>…]
//		tls {
//			ca_file <file>
//			cert    <file>
//			key     <file>
//			server_name <name>
//			insecure_skip_verify
//		}
//		sasl plain|scram-sha-256|scram-sha-512 <user> <password>
//		producer {
//			topics <topic> [<topic>…]
//			compression none|gzip|snappy|lz4|zstd
//			key <text>
//		}
//		consumer {
//			topics <topic> [<topic>…]
//			topic_pattern <regular expression>
//			auto_offset_reset latest|earliest
//		}
//		idle <duration>
//	}
//
// tls may stand alone, which trusts the authorities that the system trusts.
func (k *Kafka) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "endpoint kafka",
		parse.Strings("brokers", &k.Brokers),
		options.ParseTLS(&k.TLS),
		parse.Option{Name: "sasl", Set: k.unmarshalSASL},
		parse.Option{Name: "producer", Set: k.unmarshalProducer},
		parse.Option{Name: "consumer", Set: k.unmarshalConsumer},
		parse.Duration("idle", &k.Idle),
	)
}

func (k *Kafka) unmarshalSASL(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 3 {
		return d.Errf("option %q needs a mechanism, a user and a password", "sasl")
	}
	if err := oneOf("sasl", args[0], mechanisms); err != nil {
		return d.WrapErr(err)
	}
	k.SASL = &SASL{Mechanism: args[0], User: args[1], Password: args[2]}
	return nil
}

func (k *Kafka) unmarshalProducer(d *caddyfile.Dispenser) error {
	k.Producer = new(Producer)
	return parse.Nested("producer",
		parse.Strings("topics", &k.Producer.Topics),
		parse.OneOf("compression", &k.Producer.Compression, compressions...),
		parse.String("key", &k.Producer.Key),
	).Set(d)
}

func (k *Kafka) unmarshalConsumer(d *caddyfile.Dispenser) error {
	k.Consumer = new(Consumer)
	return parse.Nested("consumer",
		parse.Strings("topics", &k.Consumer.Topics),
		parse.String("topic_pattern", &k.Consumer.TopicPattern),
		parse.OneOf("auto_offset_reset", &k.Consumer.AutoOffsetReset, resets...),
	).Set(d)
}

var _ caddyfile.Unmarshaler = (*Kafka)(nil)
