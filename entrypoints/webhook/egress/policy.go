package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxURL is how long a URL may be, in bytes.
const maxURL = 2048

// Policy says what may be called. Its zero value is https to public addresses.
type Policy struct {
	// AllowHTTP permits URLs that are not encrypted.
	AllowHTTP bool
	// Networks are those that may be called although they are not public. An address of a
	// cloud's metadata service is permitted only by itself, and not by a network around it.
	Networks []netip.Prefix
	// Hosts, if there are any, are the only ones that may be called: names, "*." and a
	// domain for all that is below it, or addresses. What is called must be in Networks or
	// public all the same.
	Hosts []string
}

// BlockedError is the refusal to call a host.
type BlockedError struct {
	// Host is what was asked for, Addr the address it has, if it came to that.
	Host string
	Addr netip.Addr
	// Why ends a sentence that begins with the host or the address.
	Why string
}

func (b *BlockedError) Error() string {
	who := strconv.Quote(clip(b.Host, 128))
	if b.Addr.IsValid() && b.Addr.String() != b.Host {
		who = strings.TrimSpace(clip(b.Host, 128) + " (" + b.Addr.String() + ")")
	}
	return "the gateway does not call " + who + ": " + b.Why
}

// shown is the error as a subscriber may see it: names are not resolved on behalf of strangers.
func (b *BlockedError) shown() string {
	if b.Host == "" {
		return (&BlockedError{Host: b.Addr.String(), Why: b.Why}).Error()
	}
	return (&BlockedError{Host: b.Host, Why: b.Why}).Error()
}

// CheckURL reads a callback. What it returns is what is to be called: the host in lower case
// and ASCII. Its errors are for the subscriber; none repeats the query or a password.
func (p *Policy) CheckURL(raw string) (*url.URL, error) {
	if err := checkText(raw); err != nil {
		return nil, err
	}
	authority := authorityOf(raw)
	if strings.Contains(authority, "%") {
		return nil, errors.New("the host of a URL must be written without percent signs")
	}
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" {
		return nil, errors.New("that is no URL: write https://<host>/<path>") // err has all of it
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("that is no URL that can be called: write https://<host>/<path>, and not the scheme %.32q", u.Scheme)
	case u.Scheme == "http" && !p.AllowHTTP:
		return nil, errHTTP
	case u.User != nil:
		return nil, errors.New("a URL must not hold a user or a password: credentials go into auth")
	}
	if err := checkPort(authority, u.Port()); err != nil {
		return nil, err
	}
	bracketed := strings.HasPrefix(u.Host, "[")
	host, err := p.checkHost(u.Hostname(), bracketed)
	if err != nil {
		return nil, err
	}
	if bracketed {
		host = "[" + host + "]"
	}
	if port := u.Port(); port != "" {
		host += ":" + port
	}
	u.Host = host
	return u, nil
}

var errHTTP = errors.New("the URL is not encrypted: use https (the operator can permit http with allow_http)")

// checkText refuses what parsers of URLs are known to understand differently.
func checkText(raw string) error {
	switch {
	case raw == "":
		return errors.New("a URL is missing: write https://<host>/<path>")
	case len(raw) > maxURL:
		return fmt.Errorf("the URL has %d bytes: %d are allowed", len(raw), maxURL)
	case !utf8.ValidString(raw):
		return errors.New("the URL is not valid UTF-8")
	case strings.Contains(raw, "#"):
		return errors.New("a callback has no fragment: nothing after # is ever sent")
	case strings.Contains(raw, `\`):
		return errors.New(`the URL holds a backslash: write / (or %5C)`)
	}
	for _, r := range raw {
		if unicode.IsSpace(r) || !unicode.IsGraphic(r) {
			return fmt.Errorf("the URL holds the character %U, which has to be percent-encoded", r)
		}
	}
	return nil
}

// authorityOf is what stands between the scheme and the path, as it is written.
func authorityOf(raw string) string {
	_, rest, _ := strings.Cut(raw, "//")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	return rest
}

func checkPort(authority, port string) error {
	if port == "" {
		if strings.HasSuffix(authority, ":") {
			return errors.New("a port is missing after the colon")
		}
		return nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("the port %.32q is none of 1 to 65535", port)
	}
	return nil
}

// clip bounds a text, at the edge of a character.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most] + "…"
}
