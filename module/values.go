package module

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// values expands placeholders from a request. Those that read the environment or files are
// left alone: they are resolved when the configuration is loaded, never by a client.
type values struct {
	repl *caddy.Replacer
}

func valuesOf(r *http.Request) endpoints.Values {
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if repl == nil {
		repl = caddy.NewEmptyReplacer()
	}
	return values{repl}
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,128}$`)

// Text implements endpoints.Values.
func (v values) Text(s string) (string, error) {
	if !strings.Contains(s, "{") {
		return s, nil
	}
	return v.repl.ReplaceFunc(s, func(variable string, val any) (any, error) {
		if global(variable) {
			return "", message.Errorf(message.Internal, "placeholder {%s} can't be used per request", variable)
		}
		return val, nil
	})
}

// Name implements endpoints.Values.
func (v values) Name(s string) (string, error) {
	if !strings.Contains(s, "{") {
		return s, nil
	}
	return v.repl.ReplaceFunc(s, func(variable string, val any) (any, error) {
		if global(variable) {
			return "", message.Errorf(message.Internal, "placeholder {%s} can't be used per request", variable)
		}
		text := caddy.ToString(val)
		if !namePattern.MatchString(text) {
			return "", message.Errorf(message.BadInput,
				"the value of {%s} can't be part of a channel's name: use 1 to 128 of A-Z a-z 0-9 . _ ~ -", variable)
		}
		return text, nil
	})
}

func global(variable string) bool {
	return strings.HasPrefix(variable, "env.") || strings.HasPrefix(variable, "file.")
}
