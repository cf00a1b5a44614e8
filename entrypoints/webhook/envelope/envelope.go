package envelope

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"
)

// DefaultUserAgent is the User-Agent of all requests, unless Options says another.
const DefaultUserAgent = "caddy-message-api"

// Options say what requests look like.
type Options struct {
	// API is the id of the API.
	API string
	// Secrets sign, the first one first: none or up to two. Without one requests are not
	// signed, and have no webhook-signature.
	Secrets []Secret
	// Allow are the message headers that become HTTP headers: names, or beginnings of names
	// and a '*'; upper and lower case are the same. Content-Type, Content-Encoding, traceparent
	// and tracestate need not be listed. What belongs to a connection, is a credential, is
	// ours, or is believed by receivers as the word of their own proxy, never comes from a message.
	Allow []string
	// Headers are fixed ones, at most MaxFixedHeaders. They go before those of messages.
	Headers http.Header
	// CloudEvents, if set, makes the requests CloudEvents in binary mode.
	CloudEvents *CloudEvents
	// UserAgent is DefaultUserAgent when empty.
	UserAgent string
	// Dropped, if set, is told the name of each message header that should have gone out and
	// can't: its name or value is none of HTTP, it is one that never comes from a message, or
	// there are too many. It must not block.
	Dropped func(name string)
}

// Envelope makes the requests of one subscription. It is safe for concurrent use.
type Envelope struct {
	opt     Options
	agent   []string
	sign    signers
	allow   *allowList
	fixed   http.Header
	size    budget // of fixed
	source  string
	kind    string
	media   atomic.Pointer[string] // the last Content-Type that was found to be one
	request *http.Request
}

// New checks the options.
func New(opt Options) (*Envelope, error) {
	if len(opt.Secrets) > 2 {
		return nil, fmt.Errorf("%d secrets are given: at most two are in use at the same time, the new one and the old one", len(opt.Secrets))
	}
	for _, s := range opt.Secrets {
		if len(s) < MinSecret || len(s) > MaxSecret {
			return nil, fmt.Errorf("a secret has %d bytes: it needs %d to %d", len(s), MinSecret, MaxSecret)
		}
	}
	if opt.UserAgent == "" {
		opt.UserAgent = DefaultUserAgent
	}
	if !httpguts.ValidHeaderFieldValue(opt.UserAgent) || len(opt.UserAgent) > 256 {
		return nil, errors.New("the user agent contains control characters, or is longer than 256 bytes")
	}
	e := &Envelope{opt: opt, agent: []string{opt.UserAgent}, sign: newSigners(opt.Secrets)}
	var err error
	if e.allow, err = newAllowList(opt.Allow, opt.CloudEvents != nil); err != nil {
		return nil, err
	}
	if err := e.fix(opt.Headers); err != nil {
		return nil, err
	}
	if c := opt.CloudEvents; c != nil {
		if err := c.check(); err != nil {
			return nil, err
		}
		e.source, e.kind = encodeAttribute(c.Source), encodeAttribute(c.Type)
	}
	e.request = &http.Request{Method: http.MethodPost, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	return e, nil
}

// fix takes over the fixed headers, in canonical form.
func (e *Envelope) fix(headers http.Header) error {
	e.fixed = make(http.Header, len(headers))
	for name, values := range headers {
		key := textproto.CanonicalMIMEHeaderKey(name)
		for _, value := range values {
			if err := CheckHeader(name, value); err != nil {
				return err
			}
			value = textproto.TrimString(value)
			e.fixed[key] = slices.Clip(append(e.fixed[key], value)) // whoever appends makes a copy
			e.size.take(key, value)
		}
	}
	switch {
	case e.size.lines > MaxFixedHeaders:
		return fmt.Errorf("%d headers are fixed: at most %d can be", e.size.lines, MaxFixedHeaders)
	case e.size.bytes > MaxHeaderBytes/2:
		return fmt.Errorf("the fixed headers are %d bytes long together: at most %d can be", e.size.bytes, MaxHeaderBytes/2)
	case len(e.fixed[typeHeader]) > 1:
		return errors.New("header Content-Type is fixed twice")
	}
	return nil
}

// budget counts header lines and their bytes.
type budget struct{ lines, bytes int }

func (b *budget) take(key, value string) {
	const around = len(": \r\n")
	b.lines++
	b.bytes += len(key) + len(value) + around
}

// fits reports whether one more line may go out.
func (b *budget) fits(key, value string) bool {
	after := *b
	after.take(key, value)
	return after.lines <= MaxHeaders && after.bytes <= MaxHeaderBytes
}
