package webhook

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/egress"
)

// UnmarshalCaddyfile reads the block of a static subscription; the word before it is not
// looked at.
//
//	{
//		callback        <url>
//		secret          <secret> [<older secret>]
//		header          <name> <value>
//		auth            basic <user> <password>
//		auth            bearer <token>
//		auth            oauth2 {
//			token_url     <url>
//			client_id     <id>
//			client_secret <secret>
//			scopes        <scope>...
//			in_header|in_body
//		}
//		concurrency     <number>
//		order           key|lane|none
//		timeout         <duration>
//		retry           [exponential|linear|none] { ... }
//		on_client_error dead_letter|stop|skip
//		on_exhausted    dead_letter|stop
//		cloudevents     { ... }
//		tls {
//			ca          <file>
//			server_name <name>
//		}
//	}
func (c *Consumer) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the word before the block
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	c.Secrets = []string{} // unsigned: nobody would be told a secret that is made later
	err := parse.Block(d, "subscription",
		parse.String("callback", &c.Callback),
		c.secretOption(),
		c.headerOption(),
		c.authOption(),
		parse.Int("concurrency", &c.Concurrency, 1),
		parse.OneOf("order", &c.Order, orders...),
		duration("timeout", &c.Timeout),
		c.retryOption(),
		parse.OneOf("on_client_error", &c.OnClientError, clientErrorActions...),
		parse.OneOf("on_exhausted", &c.OnExhausted, exhaustedActions...),
		cloudEventsOption(&c.CloudEvents),
		c.tlsOption(),
	)
	if err == nil && c.Callback == "" {
		return d.Err("a subscription needs a callback: the URL that is called")
	}
	return err
}

func (c *Consumer) secretOption() parse.Option {
	return parse.Option{Name: "secret", Set: func(d *caddyfile.Dispenser) error {
		args := d.RemainingArgs()
		if len(args) < 1 || len(args) > maxSecrets {
			return d.Errf("option %q needs one secret, or two while they are exchanged", "secret")
		}
		c.Secrets = args
		return nil
	}}
}

func (c *Consumer) headerOption() parse.Option {
	return parse.Pairs("header", func(name, value string) {
		if c.Headers == nil {
			c.Headers = make(map[string][]string)
		}
		c.Headers.Add(name, value)
	})
}

func (c *Consumer) authOption() parse.Option {
	return parse.Option{Name: "auth", Set: func(d *caddyfile.Dispenser) error {
		args := d.RemainingArgs()
		if len(args) == 0 {
			return d.Errf("option %q needs its type: use %s", "auth", listed(authTypes))
		}
		c.Auth = &egress.AuthConfig{Type: args[0]}
		switch kind, args := args[0], args[1:]; kind {
		case authBasic:
			if len(args) != 2 {
				return d.Err("auth basic needs a user and a password")
			}
			c.Auth.Username, c.Auth.Password = args[0], args[1]
		case authBearer:
			if len(args) != 1 {
				return d.Err("auth bearer needs a token")
			}
			c.Auth.Token = args[0]
		case authOAuth2:
			if len(args) != 0 {
				return d.Errf("auth oauth2 takes a block, and %q is one too many", args[0])
			}
			return oauth2Block(d, c.Auth)
		default:
			return d.Errf("auth %q: use %s", kind, listed(authTypes))
		}
		return parse.Block(d, "auth "+args[0])
	}}
}

func oauth2Block(d *caddyfile.Dispenser, a *egress.AuthConfig) error {
	where := func(word, value string) parse.Option {
		return parse.Option{Name: word, Set: func(d *caddyfile.Dispenser) error {
			if a.ClientAuth != "" {
				return d.Err("use one of in_header and in_body")
			}
			a.ClientAuth = value
			return parse.NoArgs(d)
		}}
	}
	return parse.Block(d, "auth oauth2",
		parse.String("token_url", &a.TokenURL),
		parse.String("client_id", &a.ClientID),
		parse.String("client_secret", &a.ClientSecret),
		parse.Strings("scopes", &a.Scopes),
		where("in_header", clientAuthHeader),
		where("in_body", clientAuthBody),
	)
}

func (c *Consumer) retryOption() parse.Option {
	return parse.Option{Name: "retry", Set: func(d *caddyfile.Dispenser) (err error) {
		c.Retry = new(ConsumerRetry)
		if c.Retry.Strategy, err = strategyArg(d); err != nil {
			return err
		}
		return parse.Block(d, "retry",
			attemptsOption(func(n int) { c.Retry.Attempts = n }),
			duration("delay", &c.Retry.Delay),
			duration("max_delay", &c.Retry.MaxDelay),
			jitterOption(&c.Retry.Jitter),
		)
	}}
}

// tlsOption takes a file's name, and writes the placeholder by which its content gets into
// the configuration when that is loaded.
func (c *Consumer) tlsOption() parse.Option {
	return parse.Option{Name: "tls", Set: func(d *caddyfile.Dispenser) error {
		t := new(ConsumerTLS)
		c.TLS = t
		var file string
		err := parse.Nested("tls",
			parse.String("ca", &file),
			parse.String("server_name", &t.ServerName),
		).Set(d)
		if t.CA = file; file != "" && !strings.Contains(file, "{") {
			t.CA = fmt.Sprintf("{file.%s}", file)
		}
		return err
	}}
}

// duration is positive for a Duration.
func duration(name string, into *Duration) parse.Option {
	var value caddy.Duration
	option := positive(name, &value)
	set := option.Set
	option.Set = func(d *caddyfile.Dispenser) error {
		err := set(d)
		*into = Duration(value)
		return err
	}
	return option
}
