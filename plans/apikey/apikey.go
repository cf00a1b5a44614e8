// Package apikey is the plan that lets in who has an API key of a subscription.
package apikey

import (
	"errors"
	"fmt"
	"net/textproto"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

func init() {
	caddy.RegisterModule(new(APIKey))
}

const (
	// DefaultHeader is the request header that holds the key.
	DefaultHeader = "X-Gravitee-Api-Key"

	// off is what is written instead of a name to forbid that way of presenting a key.
	off = "off"
)

// notForKeys are headers that something else than a key stands in, or that never reach a
// handler.
var notForKeys = []string{"Authorization", "Connection", "Cookie", "Host", "Proxy-Authorization", "Upgrade"}

// APIKey lets in whom a subscription has given an API key. The key stands in a request
// header, or, where that is allowed, in the URL's query: links and browsers' EventSource
// and WebSocket can set no header, but a URL also ends up in histories and in the logs of
// proxies.
//
// A request that presents two keys is refused, even if one of them is good.
//
//	plan api_key {
//		header          <name>|off
//		query_parameter <name>|off
//	}
type APIKey struct {
	// Header is the request header that holds the key; off allows none.
	// Default: X-Gravitee-Api-Key
	Header string `json:"header,omitempty"`
	// QueryParameter is the parameter of the URL's query that may hold the key instead.
	// The gateway takes it out of the request. While it is off, keys in queries are not
	// looked at. Default: off
	QueryParameter string `json:"query_parameter,omitempty"`

	header    string // canonical; "" is none
	parameter string // "" is none
	challenge string
	directory plans.Directory
}

// CaddyModule implements caddy.Module.
func (*APIKey) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: plans.Namespace + ".api_key", New: func() caddy.Module { return new(APIKey) }}
}

// Provision implements caddy.Provisioner.
func (a *APIKey) Provision(caddy.Context) error {
	switch a.Header {
	case "":
		a.header = DefaultHeader
	case off:
		a.header = ""
	default:
		a.header = textproto.CanonicalMIMEHeaderKey(a.Header)
	}
	a.parameter = a.QueryParameter
	if a.parameter == off {
		a.parameter = ""
	}
	if err := a.check(); err != nil {
		return fmt.Errorf("plan api_key: %w", err)
	}
	a.challenge = `APIKey realm="message-api"`
	if a.header != "" {
		a.challenge += `, header="` + a.header + `"`
	}
	if a.parameter != "" {
		a.challenge += `, query_parameter="` + a.parameter + `"`
	}
	return nil
}

func (a *APIKey) check() error {
	var errs []error
	if a.header == "" && a.parameter == "" {
		errs = append(errs, errors.New("header and query_parameter are both off: a key could stand nowhere"))
	}
	if a.header != "" && !httpguts.ValidHeaderFieldName(a.header) {
		errs = append(errs, fmt.Errorf("header %q is no name of a header", a.Header))
	}
	if slices.Contains(notForKeys, a.header) {
		errs = append(errs, fmt.Errorf("header %s has another use: take one of your own, or the default %s", a.header, DefaultHeader))
	}
	if !wellFormed(a.parameter) && a.parameter != "" {
		errs = append(errs, fmt.Errorf("query_parameter %q: use letters, digits, '.', '_', '~' and '-'", a.QueryParameter))
	}
	return errors.Join(errs...)
}

// SetDirectory implements plans.Subscribed.
func (a *APIKey) SetDirectory(d plans.Directory) { a.directory = d }

// Kind implements plans.Plan.
func (*APIKey) Kind() string { return "api_key" }

// Anonymous implements plans.Plan.
func (*APIKey) Anonymous() bool { return false }

// Challenge implements plans.Challenger. The scheme APIKey is not registered; it tells
// people where the key belongs.
func (a *APIKey) Challenge() string { return a.challenge }

// CredentialHeaders implements plans.Carrier.
func (a *APIKey) CredentialHeaders() []string {
	if a.header == "" {
		return nil
	}
	return []string{a.header}
}

// QueryParameters implements plans.Carrier.
func (a *APIKey) QueryParameters() []string {
	if a.parameter == "" {
		return nil
	}
	return []string{a.parameter}
}

// Interface guards.
var (
	_ caddy.Provisioner = (*APIKey)(nil)
	_ plans.Plan        = (*APIKey)(nil)
	_ plans.Challenger  = (*APIKey)(nil)
	_ plans.Subscribed  = (*APIKey)(nil)
	_ plans.Carrier     = (*APIKey)(nil)
)
