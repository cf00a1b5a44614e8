package mqtt5

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
)

// UnmarshalCaddyfile reads
//
//	endpoint mqtt5 {
//		server <host:port | mqtt://… | mqtts://… | ws://… | wss://…> [<server>…]
//		tls {
//			ca_file <file>
//			cert    <file>
//			key     <file>
//			server_name <name>
//			insecure_skip_verify
//		}
//		auth <user> <password>
//		client_id <prefix>
//		keep_alive <duration>
//		session_expiry <duration>
//		idle <duration>
//		will {
//			topic <topic>
//			payload <text>
//			qos 0|1|2
//			retained
//			delay <duration>
//		}
//		producer {
//			topic <topic>
//			qos 0|1|2
//			retained
//			message_expiry <duration>
//			response_topic <topic>
//			correlation_data <text>
//			content_type <text>
//		}
//		consumer {
//			topic <filter> [<filter>…]
//			qos 0|1|2
//			share auto|always
//			receive_maximum <number>
//		}
//	}
//
// tls may stand alone, which trusts the authorities that the system trusts.
func (m *MQTT5) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "endpoint mqtt5",
		parse.Strings("server", &m.Servers),
		options.ParseTLS(&m.TLS),
		options.ParseAuth(&m.Auth),
		parse.String("client_id", &m.ClientID),
		parse.Duration("keep_alive", &m.KeepAlive),
		parse.Duration("session_expiry", &m.SessionExpiry),
		parse.Duration("idle", &m.Idle),
		parse.Option{Name: "will", Set: m.unmarshalWill},
		parse.Option{Name: "producer", Set: m.unmarshalProducer},
		parse.Option{Name: "consumer", Set: m.unmarshalConsumer},
	)
}

func (m *MQTT5) unmarshalWill(d *caddyfile.Dispenser) error {
	m.Will = new(Will)
	return parse.Nested("will",
		parse.String("topic", &m.Will.Topic),
		parse.String("payload", &m.Will.Payload),
		level(func(q int) { m.Will.QoS = q }),
		parse.Flag("retained", &m.Will.Retained),
		parse.Duration("delay", &m.Will.Delay),
	).Set(d)
}

func (m *MQTT5) unmarshalProducer(d *caddyfile.Dispenser) error {
	m.Producer = new(Producer)
	return parse.Nested("producer",
		parse.String("topic", &m.Producer.Topic),
		level(func(q int) { m.Producer.QoS = &q }),
		parse.Flag("retained", &m.Producer.Retained),
		parse.Duration("message_expiry", &m.Producer.MessageExpiry),
		parse.String("response_topic", &m.Producer.ResponseTopic),
		parse.String("correlation_data", &m.Producer.CorrelationData),
		parse.String("content_type", &m.Producer.ContentType),
	).Set(d)
}

func (m *MQTT5) unmarshalConsumer(d *caddyfile.Dispenser) error {
	m.Consumer = new(Consumer)
	return parse.Nested("consumer",
		parse.Strings("topic", &m.Consumer.Topics),
		level(func(q int) { m.Consumer.QoS = &q }),
		parse.OneOf("share", &m.Consumer.Share, shareWords...),
		parse.Int("receive_maximum", &m.Consumer.ReceiveMaximum, 1),
	).Set(d)
}

// level reads MQTT's own QoS, which is a number.
func level(set func(int)) parse.Option {
	return parse.Option{Name: "qos", Set: func(d *caddyfile.Dispenser) error {
		var text string
		if err := parse.OneOf("qos", &text, "0", "1", "2").Set(d); err != nil {
			return err
		}
		set(int(text[0] - '0'))
		return nil
	}}
}

var _ caddyfile.Unmarshaler = (*MQTT5)(nil)
