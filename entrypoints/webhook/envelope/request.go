package envelope

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// Request makes the request for one attempt: a POST of the payload to callback, at the time
// now. id is the webhook-id, and attempt counts from 1. The request shares callback and the
// payload, and changes neither; it can be sent again (GetBody).
//
// Ours are webhook-id, webhook-timestamp (now, in seconds), webhook-signature, webhook-attempt,
// User-Agent, traceparent, and the attributes of CloudEvents. Fixed headers go before those of
// the message. Content-Type is that of the message, by its header content-type or by the
// broker's property, and application/octet-stream without one.
//
// A tombstone (message.TombstoneField), which on a compacted channel deletes its key, has an
// empty body and "webhook-tombstone: true", so that it can be told from an empty message. Like
// every header but id and timestamp it is not under the signature.
//
// An error means that no request can be made of this message, now or later.
func (e *Envelope) Request(ctx context.Context, callback *url.URL, d *message.Delivery, id string, attempt int, now time.Time) (*http.Request, error) {
	if callback == nil || callback.Host == "" {
		return nil, errors.New("there is no callback to send to")
	}
	if err := checkID(id); err != nil {
		return nil, err
	}
	w := writer{e: e, m: d.Message, size: e.size}
	w.survey()
	r := e.request.WithContext(ctx)
	r.URL, r.Host = callback, callback.Host
	r.Header = w.write(id, attempt, now)
	setBody(r, d.Payload)
	return r, nil
}

// setBody uses the very types by which net/http knows that a body is in memory, and so sends
// it in one write with the headers.
func setBody(r *http.Request, payload []byte) {
	if len(payload) == 0 {
		r.Body, r.GetBody = http.NoBody, noBody
		return
	}
	r.ContentLength = int64(len(payload))
	r.Body = io.NopCloser(bytes.NewReader(payload))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(payload)), nil }
}

func noBody() (io.ReadCloser, error) { return http.NoBody, nil }
