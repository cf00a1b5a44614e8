// Package e2e tests the gateway from outside, as clients and operators meet it: a real
// Caddy, real HTTP and WebSocket clients, and real brokers.
package e2e

import (
	"testing"

	_ "github.com/caddy-message-api/caddy-message-api" // every module of the default set
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

func TestMain(m *testing.M) { gateway.Main(m) }
