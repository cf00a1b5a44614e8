// Command caddy is Caddy with message APIs: the standard modules and this project's.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-message-api/caddy-message-api"
)

func main() { caddycmd.Main() }
