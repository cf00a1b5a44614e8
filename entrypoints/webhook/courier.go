package webhook

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/egress"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/envelope"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/worker"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// maxRetryAfter bounds what clients ask for by Retry-After.
const maxRetryAfter = 24 * time.Hour

// courier takes messages to one callback. It is safe for concurrent use.
type courier struct {
	callback    *url.URL
	envelope    *envelope.Envelope
	client      *http.Client
	auth        egress.Auth // nil is none
	timeout     time.Duration
	maxResponse int64
	settings    settings
	// repeats: a call on a kept connection that turns out to be closed is made again at once.
	repeats bool
	// own are the transports that nobody else uses.
	own []*http.Transport
}

// send makes one attempt.
func (c *courier) send(ctx context.Context, d *message.Delivery, id string, attempt int) worker.Result {
	at := time.Now()
	result := worker.Result{Attempt: entrypoints.Attempt{ID: id, At: at, Number: attempt}}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	request, err := c.envelope.Request(ctx, c.callback, d, id, attempt, at)
	if err != nil {
		result.Outcome, result.Error = entrypoints.Unsendable, err.Error()
		return result
	}
	c.exchange(request, &result)
	result.Duration = time.Since(at)
	return result
}

func (c *courier) exchange(request *http.Request, result *worker.Result) {
	if c.auth != nil {
		if err := c.auth.Authorize(request.Context(), request); err != nil {
			result.Outcome, result.Error = egress.Classify(err)
			return
		}
	}
	if _, own := request.Header["Idempotency-Key"]; c.repeats && !own {
		egress.MayRepeat(request)
	}
	response, err := c.client.Do(request)
	if err != nil {
		result.Outcome, result.Error = egress.Classify(err)
		return
	}
	c.judge(response, result)
	// The status is the answer, whatever becomes of the body, which is read so that the
	// connection can be used again.
	_, _ = io.CopyN(io.Discard, response.Body, c.maxResponse+1)
	_ = response.Body.Close()
}

// judge says what an answer means.
func (c *courier) judge(response *http.Response, result *worker.Result) {
	status := response.StatusCode
	result.Status = status
	result.Error = describe(status)
	switch {
	case status >= 200 && status < 300:
		result.Outcome, result.Error = entrypoints.Delivered, ""
	case status == http.StatusGone:
		result.Outcome = entrypoints.Gone
	case status == http.StatusTooManyRequests:
		result.Outcome, result.RetryAfter = entrypoints.Throttled, retryAfter(response)
	case status == http.StatusServiceUnavailable && retryAfter(response) > 0:
		result.Outcome, result.RetryAfter = entrypoints.Throttled, retryAfter(response)
	case status == http.StatusUnauthorized && c.auth != nil:
		c.auth.Rejected()
		result.Outcome = entrypoints.AuthFailed
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		result.Outcome = entrypoints.ServerError // it says by itself that later is better
	case status >= 300 && status < 500:
		result.Outcome = entrypoints.ClientError
	default:
		result.Outcome = entrypoints.ServerError
	}
}

func describe(status int) string {
	text := strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
	switch {
	case status == http.StatusGone:
		return "the callback answered " + text + ": it wants no more"
	case status >= 300 && status < 400:
		return "the callback answered " + text + ": redirects are not followed"
	}
	return "the callback answered " + text
}

// retryAfter reads Retry-After (RFC 9110 §10.2.3), in seconds or as a date, which counts from
// the answer's own date where it has one: the clocks may differ. 0 says nothing.
func retryAfter(response *http.Response) time.Duration {
	text := strings.TrimSpace(response.Header.Get("Retry-After"))
	if text == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(text, 10, 63); err == nil {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	if strings.Trim(text, "0123456789") == "" {
		return maxRetryAfter // more seconds than fit into a number
	}
	until, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	now := time.Now()
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		now = date
	}
	return min(max(until.Sub(now), 0), maxRetryAfter)
}

// newCourier makes what a subscription's configuration says. What it complains about was
// allowed when the configuration was taken, and is not any more.
func (e *Entrypoint) newCourier(api string, c *Consumer) (*courier, error) {
	callback, err := e.policy.CheckURL(c.Callback)
	if err != nil {
		return nil, fmt.Errorf("callback: %w", err)
	}
	s := e.settingsOf(c)
	s.bound(&e.defaults)
	if e.DeadLetter == "" && (s.onClientError == deadLetter || s.onExhausted == deadLetter) {
		return nil, fmt.Errorf("the subscription wants its messages dead-lettered, and the API has no dead_letter any more: " +
			"change the subscription, or name an endpoint by `dead_letter`")
	}
	made := &courier{callback: callback, timeout: s.timeout, maxResponse: e.maxResponse, settings: s,
		repeats: e.QoS != message.AtMostOnce}
	if made.envelope, err = e.newEnvelope(api, c, &s); err != nil {
		return nil, err
	}
	if err = e.connect(made, c); err != nil {
		made.close()
		return nil, err
	}
	return made, nil
}

func (e *Entrypoint) newEnvelope(api string, c *Consumer, s *settings) (*envelope.Envelope, error) {
	opt := envelope.Options{API: api, Allow: e.MessageHeaders, Headers: c.Headers, Dropped: e.warnDropped()}
	for i, text := range c.Secrets {
		secret, err := envelope.ParseSecret(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at("secrets", i), err)
		}
		opt.Secrets = append(opt.Secrets, secret)
	}
	if s.cloudEvents != nil {
		opt.CloudEvents = &envelope.CloudEvents{Source: s.cloudEvents.Source, Type: s.cloudEvents.Type}
	}
	return envelope.New(opt)
}

// warnDropped tells once of a header that can't go out: publishers could fill the log.
func (e *Entrypoint) warnDropped() func(name string) {
	var once sync.Once
	return func(name string) {
		once.Do(func() {
			e.logger.Warn("a message header can't become an HTTP header and was left out; of others like it nothing is said",
				zap.String("header", oneLine(name, maxLetterError)))
		})
	}
}

// connect gives the courier its transports: the shared one, unless the subscription has TLS
// options of its own.
func (e *Entrypoint) connect(made *courier, c *Consumer) error {
	transport, tokens := e.couriers.shared, e.couriers.shared
	own, err := c.TLS.config()
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	if own != nil && own.RootCAs != nil {
		tokens = made.ownTransport(e, own.RootCAs, "")
		transport = tokens
	}
	if own != nil && own.ServerName != "" {
		// Tokens may come from another host, whose certificate has another name.
		transport = made.ownTransport(e, own.RootCAs, own.ServerName)
	}
	made.client = egress.NewClient(transport, 0) // the context of each attempt has the timeout
	if c.Auth == nil {
		return nil
	}
	made.auth, err = egress.NewAuth(*c.Auth, egress.NewClient(tokens, made.timeout), &e.policy)
	if err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	return nil
}

func (c *courier) close() {
	for _, t := range c.own {
		t.CloseIdleConnections()
	}
}
