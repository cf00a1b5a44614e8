package webhook

import (
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// UnmarshalCaddyfile reads
//
//	entrypoint webhook {
//		qos              auto|at_most_once|at_least_once
//		timeout          <duration>
//		connect_timeout  <duration>
//		concurrency      <number>
//		order            key|lane|none
//		retry            [exponential|linear|none] {
//			attempts   <number>|unlimited
//			delay      <duration>
//			max_delay  <duration>
//			jitter     <share>
//		}
//		on_client_error  dead_letter|stop|skip
//		on_exhausted     dead_letter|stop
//		dead_letter      <endpoint>
//		message_headers  <name>|<prefix>*...
//		cloudevents {
//			source <uri>
//			type   <type>
//		}
//		allow_http       [on|off]
//		allow_networks   <cidr>|<address>|private|loopback...
//		allow_hosts      <host>|*.<domain>...
//		connections      <number>
//		max_response     <size>
//		proxy            <url>
//		tls {
//			ca                   <file>...
//			client_certificate   <certificate> <key>
//			server_name          <name>
//			insecure_skip_verify [on|off]
//		}
//		via              <endpoint>
//	}
func (e *Entrypoint) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the type name
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "entrypoint "+moduleName,
		qosOption(&e.QoS),
		positive("timeout", &e.Timeout),
		positive("connect_timeout", &e.ConnectTimeout),
		parse.Int("concurrency", &e.Concurrency, 1),
		parse.OneOf("order", &e.Order, orders...),
		e.retryOption(),
		parse.OneOf("on_client_error", &e.OnClientError, clientErrorActions...),
		parse.OneOf("on_exhausted", &e.OnExhausted, exhaustedActions...),
		parse.String("dead_letter", &e.DeadLetter),
		parse.Strings("message_headers", &e.MessageHeaders),
		cloudEventsOption(&e.CloudEvents),
		parse.Flag("allow_http", &e.AllowHTTP),
		parse.Strings("allow_networks", &e.AllowNetworks),
		parse.Strings("allow_hosts", &e.AllowHosts),
		parse.Int("connections", &e.Connections, 1),
		parse.Size("max_response", &e.MaxResponse),
		parse.String("proxy", &e.Proxy),
		e.tlsOption(),
		parse.String("via", &e.Via),
	)
}

func (e *Entrypoint) retryOption() parse.Option {
	return parse.Option{Name: "retry", Set: func(d *caddyfile.Dispenser) (err error) {
		e.Retry = new(Retry)
		if e.Retry.Strategy, err = strategyArg(d); err != nil {
			return err
		}
		return parse.Block(d, "retry",
			attemptsOption(func(n int) { e.Retry.Attempts = n }),
			positive("delay", &e.Retry.Delay),
			positive("max_delay", &e.Retry.MaxDelay),
			jitterOption(&e.Retry.Jitter),
		)
	}}
}

func (e *Entrypoint) tlsOption() parse.Option {
	return parse.Option{Name: "tls", Set: func(d *caddyfile.Dispenser) error {
		t := new(TLS)
		e.TLS = t
		return parse.Nested("tls",
			parse.Strings("ca", &t.CA),
			parse.Option{Name: "client_certificate", Set: func(d *caddyfile.Dispenser) error {
				args := d.RemainingArgs()
				if len(args) != 2 {
					return d.Errf("option %q needs the certificate's file and its key's", "client_certificate")
				}
				t.ClientCertificate = &ClientCertificate{Certificate: args[0], Key: args[1]}
				return nil
			}},
			parse.String("server_name", &t.ServerName),
			parse.Flag("insecure_skip_verify", &t.InsecureSkipVerify),
		).Set(d)
	}}
}

func qosOption(into *message.QoS) parse.Option {
	return parse.Option{Name: "qos", Set: func(d *caddyfile.Dispenser) error {
		var text string
		if err := parse.OneOf("qos", &text, "auto", "at_most_once", "at_least_once").Set(d); err != nil {
			return err
		}
		return into.UnmarshalText([]byte(text))
	}}
}

// strategyArg reads the strategy behind retry, which may be missing.
func strategyArg(d *caddyfile.Dispenser) (string, error) {
	args := d.RemainingArgs()
	if len(args) > 1 {
		return "", d.Errf("option %q takes one value, and %q is one too many", "retry", args[1])
	}
	if len(args) == 0 {
		return "", nil
	}
	for _, s := range strategies {
		if s == args[0] {
			return s, nil
		}
	}
	return "", d.Errf("retry %q: use %s", args[0], listed(strategies))
}

func attemptsOption(set func(int)) parse.Option {
	return parse.Option{Name: "attempts", Set: func(d *caddyfile.Dispenser) error {
		var text string
		if err := parse.String("attempts", &text).Set(d); err != nil {
			return err
		}
		if text == "unlimited" {
			set(Unlimited)
			return nil
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > MaxAttempts {
			return d.Errf("attempts %q: use a whole number of 1 to %d, or unlimited", text, MaxAttempts)
		}
		set(n)
		return nil
	}}
}

func jitterOption(into **float64) parse.Option {
	return parse.Option{Name: "jitter", Set: func(d *caddyfile.Dispenser) error {
		var text string
		if err := parse.String("jitter", &text).Set(d); err != nil {
			return err
		}
		share, err := strconv.ParseFloat(text, 64)
		if err != nil || !(share >= 0 && share <= 1) {
			return d.Errf("jitter %q: use a share of 0 to 1, like 0.2", text)
		}
		*into = &share
		return nil
	}}
}

func cloudEventsOption(into **CloudEvents) parse.Option {
	return parse.Option{Name: "cloudevents", Set: func(d *caddyfile.Dispenser) error {
		c := new(CloudEvents)
		*into = c
		return parse.Nested("cloudevents",
			parse.String("source", &c.Source),
			parse.String("type", &c.Type),
		).Set(d)
	}}
}

// positive is parse.Duration without 0, which would silently mean the default.
func positive(name string, into *caddy.Duration) parse.Option {
	option := parse.Duration(name, into)
	set := option.Set
	option.Set = func(d *caddyfile.Dispenser) error {
		if err := set(d); err != nil {
			return err
		}
		if *into == 0 {
			return d.Errf("%s must be longer than 0", name)
		}
		return nil
	}
	return option
}
