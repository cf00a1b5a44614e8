// Package caddyfile registers the directives message_api and message_api_health and the
// global option message_api. What stands in their blocks is read by the types themselves.
package caddyfile

import (
	"maps"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-message-api/caddy-message-api/module"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("message_api", globalOption)
	httpcaddyfile.RegisterDirective("message_api", directive)
	httpcaddyfile.RegisterDirectiveOrder("message_api", httpcaddyfile.Before, "reverse_proxy")
	httpcaddyfile.RegisterHandlerDirective("message_api_health", health)
	httpcaddyfile.RegisterDirectiveOrder("message_api_health", httpcaddyfile.Before, "reverse_proxy")
}

// managedClaim stands for the managed APIs among the paths of a site block.
const managedClaim = "managed APIs"

func globalOption(d *caddyfile.Dispenser, earlier any) (any, error) {
	if earlier != nil {
		d.Next()
		return nil, d.Err("the global option message_api stands twice: write one block")
	}
	app := new(module.App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: module.AppID, Value: caddyconfig.JSON(app, nil)}, nil
}

// directive makes one route per context path, or without a path and a block one that serves
// the managed APIs.
func directive(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next()
	matcher, err := namedMatcher(h)
	if err != nil {
		return nil, err
	}
	handler := new(module.Handler)
	if h.CountRemainingArgs() > 0 {
		return declared(h, matcher, handler)
	}
	if h.NextBlock(h.Nesting()) {
		return nil, h.Err("message_api needs at least one context path, like `message_api /orders { ... }`; " +
			"without a path it has no block either, and serves the managed APIs")
	}
	if line, again := claim(h, managedClaim); again && matcher == nil {
		return nil, h.Errf("message_api without a path stands twice, first on line %d", line)
	}
	return h.NewRoute(matcher, handler), nil
}

// declared makes one route per context path, because Caddy sorts routes with a single path
// by its length, so that of nested context paths the longest wins.
func declared(h httpcaddyfile.Helper, matcher caddy.ModuleMap, handler *module.Handler) ([]httpcaddyfile.ConfigValue, error) {
	for _, arg := range h.RemainingArgs() {
		path, err := module.ContextPath(arg)
		if err != nil {
			return nil, h.Err(err.Error())
		}
		if line, again := claim(h, path); again && matcher == nil {
			return nil, h.Errf("context path %q is taken already, on line %d", arg, line)
		}
		handler.Paths = append(handler.Paths, orRoot(path))
	}
	if err := handler.Definition.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	var routes []httpcaddyfile.ConfigValue
	for _, path := range handler.Paths {
		set, err := withPath(h, matcher, path)
		if err != nil {
			return nil, err
		}
		routes = append(routes, h.NewRoute(set, handler)...)
	}
	return routes, nil
}

// namedMatcher reads the optional @matcher. A first argument like /orders is a context path
// and no matcher.
func namedMatcher(h httpcaddyfile.Helper) (caddy.ModuleMap, error) {
	if !h.NextArg() {
		return nil, nil
	}
	named := strings.HasPrefix(h.Val(), "@")
	h.Prev()
	if !named {
		return nil, nil
	}
	set, _, err := h.MatcherToken()
	return set, err
}

// claim notes that the path is used in this site block, and says where it was before.
func claim(h httpcaddyfile.Helper, path string) (line int, again bool) {
	const key = "message_api_paths"
	taken, ok := h.BlockState[key].(map[string]int)
	if !ok {
		taken = make(map[string]int)
		h.BlockState[key] = taken
	}
	if line, again = taken[path]; !again {
		taken[path] = h.Line()
	}
	return line, again
}

func withPath(h httpcaddyfile.Helper, named caddy.ModuleMap, path string) (caddy.ModuleMap, error) {
	set := make(caddy.ModuleMap, len(named)+1)
	maps.Copy(set, named)
	if _, ok := set["path"]; ok {
		return nil, h.Err("a matcher for message_api can't have a path of its own: the context path is one")
	}
	set["path"] = caddyconfig.JSON(caddyhttp.MatchPath{strings.TrimSuffix(path, "/") + "*"}, nil)
	if path == "/" {
		set["path"] = caddyconfig.JSON(caddyhttp.MatchPath{"/*"}, nil)
	}
	return set, nil
}

func orRoot(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

func health(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(module.Health)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}
