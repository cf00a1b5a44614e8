package module

import (
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// logIdentity are the access-log fields of an exchange.
type logIdentity struct{ s *session }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (l logIdentity) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	s := l.s
	enc.AddString("message_api", s.unit.def.ID)
	enc.AddString("message_api_entrypoint", s.way.needs.Type)
	enc.AddString("message_api_plan", s.principal.Plan)
	enc.AddUint64("message_api_session", s.id)
	enc.AddString("request_id", s.identity.RequestID)
	enc.AddString("transaction_id", s.identity.TransactionID)
	enc.AddString("client_identifier", s.identity.Client)
	enc.AddInt64("messages_sent", s.sent.Load())
	enc.AddInt64("messages_received", s.received.Load())
	if end, ok := s.endReason(); ok {
		enc.AddString("end_reason", string(end.Reason))
	}
	return nil
}

// span is the trace of one exchange, under the span that Caddy's tracing handler began.
// Without that handler it costs nothing.
type span struct{ trace.Span }

// trace begins the session's span.
func (s *session) trace(r *http.Request) (*http.Request, span) {
	parent := trace.SpanFromContext(r.Context())
	if !parent.IsRecording() {
		return r, span{}
	}
	tracer := parent.TracerProvider().Tracer("github.com/caddy-message-api/caddy-message-api")
	ctx, sp := tracer.Start(r.Context(), "message_api "+s.way.needs.Type, trace.WithAttributes(
		attribute.String("message_api.id", s.unit.def.ID),
		attribute.String("message_api.plan", s.principal.Plan),
		attribute.String("message_api.request_id", s.identity.RequestID),
		attribute.String("messaging.client.id", s.identity.Client),
	))
	r = r.WithContext(ctx)
	s.request = r
	return r, span{sp}
}

func (s span) end(err error) {
	if s.Span == nil {
		return
	}
	if end, begun := entrypoints.EndOf(err); begun {
		s.SetAttributes(attribute.String("message_api.end_reason", string(end.Reason)))
	} else if err != nil {
		s.RecordError(err)
		s.SetStatus(codes.Error, err.Error())
	}
	s.End()
}
