// Command caddy is the gateway with a storage module that has a server, for the tests of
// several nodes.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-message-api/caddy-message-api"
	_ "github.com/caddy-message-api/caddy-message-api/test/redisstorage"
)

func main() { caddycmd.Main() }
