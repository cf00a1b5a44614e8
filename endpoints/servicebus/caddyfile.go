package servicebus

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
)

// UnmarshalCaddyfile reads
//
//	endpoint azure_service_bus {
//		connection_string <string>
//		namespace         <name>.servicebus.windows.net
//		transport         amqp|websocket
//		custom_endpoint   <host[:port]>
//		tls {
//			ca_file <file>
//			cert    <file>
//			key     <file>
//			server_name <name>
//			insecure_skip_verify
//		}
//		idle <duration>
//		producer {
//			queue           <name>
//			topic           <name>
//			subject         <text>
//			session_id      <text>
//			partition_key   <text>
//			message_id      <text>
//			time_to_live    <duration>
//			scheduled_delay <duration>
//		}
//		consumer {
//			queue        <name>
//			topic        <name>
//			subscription <name>
//			shared
//			sessions            on|off
//			concurrent_sessions <number>
//			session_idle        <duration>
//			prefetch            <number>
//			max_hold            <duration>
//		}
//	}
func (s *ServiceBus) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "endpoint azure_service_bus",
		parse.String("connection_string", &s.ConnectionString),
		parse.String("namespace", &s.Namespace),
		parse.OneOf("transport", &s.Transport, overAMQP, overWebSocket),
		parse.String("custom_endpoint", &s.CustomEndpoint),
		options.ParseTLS(&s.TLS),
		parse.Duration("idle", &s.Idle),
		parse.Option{Name: "producer", Set: s.unmarshalProducer},
		parse.Option{Name: "consumer", Set: s.unmarshalConsumer},
	)
}

func (s *ServiceBus) unmarshalProducer(d *caddyfile.Dispenser) error {
	p := new(Producer)
	s.Producer = p
	return parse.Nested("producer",
		parse.String("queue", &p.Queue),
		parse.String("topic", &p.Topic),
		parse.String("subject", &p.Subject),
		parse.String("session_id", &p.SessionID),
		parse.String("partition_key", &p.PartitionKey),
		parse.String("message_id", &p.MessageID),
		parse.Duration("time_to_live", &p.TimeToLive),
		parse.Duration("scheduled_delay", &p.ScheduledDelay),
	).Set(d)
}

func (s *ServiceBus) unmarshalConsumer(d *caddyfile.Dispenser) error {
	c := new(Consumer)
	s.Consumer = c
	return parse.Nested("consumer",
		parse.String("queue", &c.Queue),
		parse.String("topic", &c.Topic),
		parse.String("subscription", &c.Subscription),
		parse.Flag("shared", &c.Shared),
		parse.Flag("sessions", &c.Sessions),
		parse.Int("concurrent_sessions", &c.ConcurrentSessions, 1),
		parse.Duration("session_idle", &c.SessionIdle),
		parse.Int("prefetch", &c.Prefetch, 1),
		parse.Duration("max_hold", &c.MaxHold),
	).Set(d)
}

var _ caddyfile.Unmarshaler = (*ServiceBus)(nil)
