//go:build !cgo || !(linux || darwin)

package solace

import (
	"errors"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
)

func init() { caddy.RegisterModule(Solace{}) }

// errBuild is what a configuration that names this endpoint fails with.
var errBuild = errors.New("endpoint solace: this binary was built without cgo, which Solace's client library needs: " +
	"build it on Linux or macOS with a C compiler, by `make build SOLACE=1`, or by " +
	"`CGO_ENABLED=1 xcaddy build --with github.com/caddy-message-api/caddy-message-api " +
	"--with github.com/caddy-message-api/caddy-message-api/endpoints/solace`")

// state is nothing where there is no library.
type state struct{}

// CaddyModule returns the Caddy module information.
func (Solace) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  endpoints.Namespace + ".solace",
		New: func() caddy.Module { return new(Solace) },
	}
}

// Provision fails, and says how to build.
func (*Solace) Provision(caddy.Context) error { return errBuild }

var _ caddy.Provisioner = (*Solace)(nil)
