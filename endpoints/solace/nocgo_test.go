//go:build !cgo || !(linux || darwin)

package solace

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// A binary without the library says how to build one that has it.
func TestBuiltWithoutTheLibrary(t *testing.T) {
	s := new(Solace)
	read := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser("solace {\n url tcp://localhost\n}"))
	for _, err := range []error{read, s.Provision(caddy.Context{})} {
		if err == nil || !strings.Contains(err.Error(), "built without cgo") || !strings.Contains(err.Error(), "make build SOLACE=1") {
			t.Errorf("%v does not say how to build", err)
		}
	}
}
