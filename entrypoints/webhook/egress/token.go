package egress

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const (
	// tokenTimeout bounds a request for a token where the client doesn't.
	tokenTimeout = 30 * time.Second
	// maxTokenResponse bounds the answer, in bytes.
	maxTokenResponse = 64 << 10
	// tokenMargin is how long before its end a token is no longer used, at most.
	tokenMargin = 10 * time.Second
	// failureKept is how long a failure is the answer to all. Else a server that refuses would be asked
	// for every message.
	failureKept = time.Second
	// rejectedOnce is how long after a rejection others are ignored. They come in late, for
	// the token that was forgotten; or another token wouldn't be better.
	rejectedOnce = 10 * time.Second
)

// tokens has a token, or asks for one: once, for all who want it.
type tokens struct {
	config clientcredentials.Config
	client *http.Client

	mu       sync.Mutex
	header   []string  // with the token, or nil
	until    time.Time // when it ends; zero is never
	rejected time.Time // when one was forgotten last
	failure  error
	retry    time.Time // until then, failure is the answer
	flight   *flight
}

// flight is one request for a token. It ends when nobody waits for it any more.
type flight struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiting int // under tokens.mu
	header  []string
	err     error
}

func newTokens(cfg AuthConfig, client *http.Client, p *Policy) (*tokens, error) {
	u, err := p.CheckURL(cfg.TokenURL)
	if err != nil {
		return nil, err
	}
	style := oauth2.AuthStyleInHeader
	if cfg.ClientAuth == "body" {
		style = oauth2.AuthStyleInParams
	}
	own := *client
	own.Transport = short{client.Transport}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &tokens{
		client: &own,
		config: clientcredentials.Config{
			ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret,
			TokenURL: u.String(), Scopes: cfg.Scopes, AuthStyle: style,
		},
	}, nil
}

// Authorize adds the token.
func (t *tokens) Authorize(ctx context.Context, r *http.Request) error {
	header, err := t.get(ctx)
	if err != nil {
		return err
	}
	r.Header["Authorization"] = header
	return nil
}

// Rejected forgets the token.
func (t *tokens) Rejected() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); t.header != nil && (t.rejected.IsZero() || now.Sub(t.rejected) >= rejectedOnce) {
		t.header, t.rejected = nil, now
	}
}

func (t *tokens) get(ctx context.Context) ([]string, error) {
	t.mu.Lock()
	now := time.Now()
	switch {
	case t.header != nil && (t.until.IsZero() || now.Before(t.until)):
		defer t.mu.Unlock()
		return t.header, nil
	case t.failure != nil && now.Before(t.retry):
		defer t.mu.Unlock()
		return nil, t.failure
	}
	if t.flight == nil {
		// Not the context of who happens to be the first: others wait as well.
		asking, cancel := context.WithTimeout(context.Background(), tokenTimeout)
		t.flight = &flight{done: make(chan struct{}), cancel: cancel}
		go t.ask(asking, t.flight)
	}
	f := t.flight
	f.waiting++
	t.mu.Unlock()
	select {
	case <-f.done:
		return f.header, f.err
	case <-ctx.Done():
		t.leave(f)
		return nil, &AuthError{Detail: "the token endpoint did not answer in time", Err: context.Cause(ctx)}
	}
}

// leave ends the flight with the last who waits.
func (t *tokens) leave(f *flight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel()
		if t.flight == f {
			t.flight = nil
		}
	}
}

func (t *tokens) ask(ctx context.Context, f *flight) {
	defer f.cancel()
	header, until, err := t.fetch(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	f.header, f.err = header, err
	if t.flight == f {
		t.flight = nil
		t.header, t.until, t.failure = header, until, err
		t.retry = time.Now().Add(failureKept)
	}
	close(f.done)
}

func (t *tokens) fetch(ctx context.Context) (header []string, until time.Time, err error) {
	token, err := t.config.Token(context.WithValue(ctx, oauth2.HTTPClient, t.client))
	if err != nil {
		return nil, time.Time{}, &AuthError{Detail: t.redact(tokenProblem(err)), Err: err}
	}
	if kind := token.TokenType; kind != "" && !strings.EqualFold(kind, "bearer") {
		return nil, time.Time{}, &AuthError{Detail: fmt.Sprintf("the token endpoint gave a token of type %.32q: only Bearer is understood", kind)}
	}
	if len(token.AccessToken) > maxToken || strings.ContainsFunc(token.AccessToken, func(r rune) bool { return r <= ' ' || r > 0x7e }) {
		return nil, time.Time{}, &AuthError{Detail: "the token endpoint gave a token that can't be sent: too long, or with blanks or characters outside of ASCII"}
	}
	if until = token.Expiry; !until.IsZero() {
		until = until.Add(-min(tokenMargin, time.Until(until)/10))
	}
	return []string{"Bearer " + token.AccessToken}, until, nil
}

// tokenProblem says what the endpoint answered, or why it did not.
func tokenProblem(err error) string {
	var retrieve *oauth2.RetrieveError
	if !errors.As(err, &retrieve) {
		if timedOut(err) {
			return "the token endpoint did not answer in time"
		}
		return explain(err)
	}
	text := "the token endpoint answered " + clip(retrieve.Response.Status, 64)
	if retrieve.ErrorCode != "" { // else the body is anything
		text += ": " + clip(retrieve.ErrorCode, 64)
	}
	if retrieve.ErrorDescription != "" {
		text += ": " + clip(retrieve.ErrorDescription, 256)
	}
	return text
}

// redact takes the secret out of what a server may have sent back.
func (t *tokens) redact(text string) string {
	secret := t.config.ClientSecret
	return strings.NewReplacer(secret, "***", url.QueryEscape(secret), "***").Replace(text)
}

// short reads answers up to a bound.
type short struct{ next http.RoundTripper }

// RoundTrip passes the request on.
func (s short) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := s.next.RoundTrip(r)
	if err == nil {
		response.Body = http.MaxBytesReader(nil, response.Body, maxTokenResponse)
	}
	return response, err
}
