package module

import (
	"fmt"
	"strings"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
)

// elsewhere tells how to get the guests of this project that are not in the default set, by
// their module IDs.
var elsewhere = map[string]string{
	endpoints.Namespace + ".solace": "this program was built without Solace, whose client library needs cgo: " +
		"build it with `make build SOLACE=1`, or with `CGO_ENABLED=1 xcaddy build " +
		"--with github.com/caddy-message-api/caddy-message-api " +
		"--with github.com/caddy-message-api/caddy-message-api/endpoints/solace`",
}

// unknownGuest explains the error of Caddy for a module that is not in this program.
func unknownGuest(err error, namespace, kind string) error {
	how, ok := elsewhere[namespace+"."+kind]
	if !ok || !strings.Contains(err.Error(), "unknown module") {
		return err
	}
	return fmt.Errorf("%w: %s", err, how)
}
