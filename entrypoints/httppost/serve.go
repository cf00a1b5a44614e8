package httppost

import (
	"context"
	"mime"
	"net/http"
	"strings"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Serve publishes the body and answers with what became of it.
func (e *Entrypoint) Serve(w http.ResponseWriter, r *http.Request, s entrypoints.Session) error {
	if err := e.checkEncoding(w, r); err != nil {
		return err
	}
	if isBatch(r.Header.Get("Content-Type")) {
		return e.serveBatch(w, r, s)
	}
	body, err := readBody(r, e.MaxBody)
	if err != nil {
		return e.refuseRest(w, r, err)
	}
	if len(body) == 0 {
		return emptyBody()
	}
	m := &message.Message{Payload: body}
	if e.RequestHeadersToMessage {
		if m.Headers, err = requestHeaders(r.Header, s.Withheld); err != nil {
			return err
		}
	}
	s.Received(1, len(body))
	results, err := publish(r.Context(), s, m)
	if err != nil {
		return problemOf(err)
	}
	if p := failure(&results[0]); p != nil {
		return p
	}
	if !wantsRepresentation(r.Header) {
		accepted(w)
		return nil
	}
	a := answer{full: true}
	a.add(&results[0])
	return a.write(w, r)
}

func accepted(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Length", "0")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusAccepted)
}

// publish hands messages over and waits, whether or not the client does. There is one
// result per message.
func publish(ctx context.Context, s entrypoints.Session, messages ...*message.Message) ([]message.Result, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), PublishTimeout)
	defer cancel()
	results, err := s.Publish(ctx, messages...)
	if err != nil {
		return nil, err
	}
	for len(results) < len(messages) { // silence means that the outcome is unknown
		results = append(results, message.Result{})
	}
	return results, nil
}

func (e *Entrypoint) checkEncoding(w http.ResponseWriter, r *http.Request) error {
	for _, v := range r.Header["Content-Encoding"] {
		for coding := range strings.SplitSeq(v, ",") {
			coding = strings.TrimSpace(coding)
			if coding == "" || strings.EqualFold(coding, "identity") {
				continue
			}
			w.Header().Set("Accept-Encoding", "identity") // RFC 9110 §15.5.16
			return e.refuseRest(w, r, &entrypoints.Problem{
				Status: http.StatusUnsupportedMediaType, Slug: "unsupported-encoding",
				Detail: "Content-Encoding " + coding + " is not supported: send the message as it is",
			})
		}
	}
	return nil
}

func isBatch(contentType string) bool {
	const ndjson = "application/x-ndjson"
	if len(contentType) < len(ndjson) || !strings.EqualFold(contentType[:len(ndjson)], ndjson) {
		return false
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	return err == nil && mediaType == ndjson
}

func emptyBody() error {
	return &entrypoints.Problem{
		Status: http.StatusBadRequest, Slug: "empty-body",
		Detail: "the body is empty, so there is no message to publish",
	}
}

// wantsRepresentation reads Prefer (RFC 7240): of several return preferences the first counts.
func wantsRepresentation(h http.Header) bool {
	for _, v := range h["Prefer"] {
		for preference := range strings.SplitSeq(v, ",") {
			preference, _, _ = strings.Cut(preference, ";")
			name, value, _ := strings.Cut(preference, "=")
			if strings.EqualFold(strings.TrimSpace(name), "return") {
				return strings.EqualFold(strings.Trim(value, " \t\""), "representation")
			}
		}
	}
	return false
}
