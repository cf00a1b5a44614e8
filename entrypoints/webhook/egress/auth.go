package egress

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// Auth puts the gateway's credentials into requests. It is for the one host they were given
// for, and safe for concurrent use.
type Auth interface {
	// Authorize adds the credentials. Where a token has to be had first it waits for it,
	// until ctx is done. Its errors are *AuthError, or hold one.
	Authorize(ctx context.Context, r *http.Request) error
	// Rejected says that a 401 came in spite of them: a token that was kept is forgotten.
	Rejected()
}

// AuthConfig is how the gateway shows who it is.
type AuthConfig struct {
	// Type is basic, bearer or oauth2 (client credentials). None is empty.
	Type string `json:"type,omitempty"`
	// Username and Password are those of basic.
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	// Token is that of bearer.
	Token string `json:"token,omitempty"`
	// TokenURL is where oauth2 gets its tokens. The same rules hold for it as for callbacks.
	TokenURL     string `json:"token_url,omitempty"`
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`
	// Scopes are asked for. Default: none, which leaves them to the server.
	Scopes []string `json:"scopes,omitempty"`
	// ClientAuth says where the client's id and secret go: header (client_secret_basic) or
	// body (client_secret_post). Default: header.
	ClientAuth string `json:"client_auth,omitempty"`
}

// Bounds of credentials.
const (
	maxCredential = 1024
	maxToken      = 16 << 10
	maxScopes     = 64
)

// AuthError is the lack of credentials for a request.
type AuthError struct {
	Detail string // without secrets
	Err    error
}

func (e *AuthError) Error() string { return "no token was to be had: " + e.Detail }

// Unwrap returns the cause, if there is one.
func (e *AuthError) Unwrap() error { return e.Err }

// CheckAuth finds what is wrong with credentials: nil, or entrypoints.Flaws with paths like
// "token_url". None holds a secret.
func CheckAuth(cfg AuthConfig, p *Policy) error {
	c := checker{cfg: cfg}
	switch cfg.Type {
	case "", "none":
		c.only()
	case "basic":
		c.only("username", "password")
		c.text("username", cfg.Username, maxCredential)
		if strings.Contains(cfg.Username, ":") {
			c.flaw("username", "a user's name can't hold a colon")
		}
		if cfg.Password != "" {
			c.text("password", cfg.Password, maxCredential)
		}
	case "bearer":
		c.only("token")
		c.visible("token", cfg.Token, maxToken)
	case "oauth2":
		c.only("token_url", "client_id", "client_secret", "scopes", "client_auth")
		if _, err := p.CheckURL(cfg.TokenURL); err != nil {
			c.flaw("token_url", err.Error())
		}
		c.text("client_id", cfg.ClientID, maxCredential)
		c.text("client_secret", cfg.ClientSecret, maxCredential)
		if cfg.ClientAuth != "" && cfg.ClientAuth != "header" && cfg.ClientAuth != "body" {
			c.flaw("client_auth", "write header or body")
		}
		c.scopes(cfg.Scopes)
	default:
		c.flaw("type", "write basic, bearer or oauth2")
	}
	if len(c.flaws) == 0 {
		return nil
	}
	return c.flaws
}

// checker collects flaws.
type checker struct {
	cfg   AuthConfig
	flaws entrypoints.Flaws
}

func (c *checker) flaw(path, detail string) {
	c.flaws = append(c.flaws, entrypoints.Flaw{Path: path, Detail: detail})
}

// only complains of what does not belong to the type: who wrote it thinks that it is used.
func (c *checker) only(names ...string) {
	has := map[string]bool{
		"username": c.cfg.Username != "", "password": c.cfg.Password != "", "token": c.cfg.Token != "",
		"token_url": c.cfg.TokenURL != "", "client_id": c.cfg.ClientID != "", "client_secret": c.cfg.ClientSecret != "",
		"scopes": len(c.cfg.Scopes) > 0, "client_auth": c.cfg.ClientAuth != "",
	}
	for _, name := range names {
		delete(has, name)
	}
	kind := c.cfg.Type
	if kind == "" {
		kind = "none"
	}
	for _, name := range []string{"username", "password", "token", "token_url", "client_id", "client_secret", "scopes", "client_auth"} {
		if has[name] {
			c.flaw(name, "this does not belong to the type "+kind)
		}
	}
}

// text takes what has no control characters.
func (c *checker) text(path, value string, most int) {
	switch {
	case value == "":
		c.flaw(path, "this is missing")
	case len(value) > most:
		c.flaw(path, "this is too long")
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
		c.flaw(path, "this holds a control character")
	}
}

// visible takes visible ASCII, without blanks.
func (c *checker) visible(path, value string, most int) {
	c.text(path, value, most)
	if strings.ContainsFunc(value, func(r rune) bool { return r == ' ' || r > 0x7e }) {
		c.flaw(path, "this holds a blank or a character outside of ASCII")
	}
}

func (c *checker) scopes(scopes []string) {
	if len(scopes) > maxScopes {
		c.flaw("scopes", "there are too many")
		return
	}
	for _, scope := range scopes { // RFC 6749 §3.3
		if scope == "" || len(scope) > maxCredential || strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > 0x7e || r == '"' || r == '\\' }) {
			c.flaw("scopes", "a scope is a word of visible ASCII without quotes and backslashes")
			return
		}
	}
}

// NewAuth makes what cfg asks for. Tokens are got with client, which NewClient has made, and
// from a URL that p permits.
func NewAuth(cfg AuthConfig, client *http.Client, p *Policy) (Auth, error) {
	if err := CheckAuth(cfg, p); err != nil {
		return nil, err
	}
	switch cfg.Type {
	case "basic":
		return fixed{"Basic " + base64.StdEncoding.EncodeToString([]byte(cfg.Username+":"+cfg.Password))}, nil
	case "bearer":
		return fixed{"Bearer " + cfg.Token}, nil
	case "oauth2":
		if client == nil || client.Transport == nil {
			return nil, errors.New("oauth2 needs a client that keeps to the policy")
		}
		return newTokens(cfg, client, p)
	}
	return fixed(nil), nil
}

// fixed is a header that never changes, or none.
type fixed []string

// Authorize adds the header.
func (f fixed) Authorize(_ context.Context, r *http.Request) error {
	if f != nil {
		r.Header["Authorization"] = f
	}
	return nil
}

// Rejected changes nothing: there is nothing to be had but this.
func (fixed) Rejected() {}

// Interface guards
var (
	_ Auth = fixed(nil)
	_ Auth = (*tokens)(nil)
)
