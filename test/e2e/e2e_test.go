// Package e2e tests the gateway from outside, as clients and operators meet it: a real
// Caddy, real HTTP and WebSocket clients, and real brokers.
package e2e

import (
	"testing"

	"go.uber.org/goleak"

	_ "github.com/caddy-message-api/caddy-message-api" // every module of the default set
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Caddy and its parts keep these for the life of the process.
		goleak.IgnoreTopFunction("github.com/caddyserver/certmagic.(*Cache).maintainAssets"),
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
	)
}
