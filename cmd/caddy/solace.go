//go:build solace

package main

// Solace's client library is proprietary and needs cgo, so this endpoint is not in the
// default set: `make build SOLACE=1` asks for it.
import _ "github.com/caddy-message-api/caddy-message-api/endpoints/solace"
