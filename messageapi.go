// Package messageapi brings message APIs to Caddy: HTTP GET, HTTP POST, Server-Sent Events
// and WebSockets on one side, message brokers on the other. Importing it registers every
// module of the default set, so that
//
//	xcaddy build --with github.com/caddy-message-api/caddy-message-api
//
// is a complete gateway.
package messageapi

import (
	_ "github.com/caddy-message-api/caddy-message-api/caddyfile"
	_ "github.com/caddy-message-api/caddy-message-api/cli"
	_ "github.com/caddy-message-api/caddy-message-api/endpoints/kafka"
	_ "github.com/caddy-message-api/caddy-message-api/endpoints/mock"
	_ "github.com/caddy-message-api/caddy-message-api/endpoints/mqtt5"
	_ "github.com/caddy-message-api/caddy-message-api/endpoints/rabbitmq"
	_ "github.com/caddy-message-api/caddy-message-api/endpoints/servicebus"
	_ "github.com/caddy-message-api/caddy-message-api/entrypoints/httpget"
	_ "github.com/caddy-message-api/caddy-message-api/entrypoints/httppost"
	_ "github.com/caddy-message-api/caddy-message-api/entrypoints/sse"
	_ "github.com/caddy-message-api/caddy-message-api/entrypoints/webhook"
	_ "github.com/caddy-message-api/caddy-message-api/entrypoints/websocket"
	_ "github.com/caddy-message-api/caddy-message-api/module"
	_ "github.com/caddy-message-api/caddy-message-api/plans/apikey"
	_ "github.com/caddy-message-api/caddy-message-api/plans/jwt"
	_ "github.com/caddy-message-api/caddy-message-api/plans/keyless"
	_ "github.com/caddy-message-api/caddy-message-api/plans/push"
)
