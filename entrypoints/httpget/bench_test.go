package httpget

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// ready is a session that has its message at once and costs nothing.
type ready struct {
	delivery *message.Delivery
	want     entrypoints.Want
	frame    [1][]byte
}

func (*ready) Identity() entrypoints.Identity { return entrypoints.Identity{} }
func (*ready) Withheld(string) bool           { return false }
func (*ready) Logger() *zap.Logger            { return zap.NewNop() }
func (*ready) Publish(context.Context, ...*message.Message) ([]message.Result, error) {
	return nil, nil
}

func (s *ready) Subscribe(_ context.Context, want entrypoints.Want) (entrypoints.Feed, error) {
	s.want = want
	return s, nil
}
func (*ready) OnEnd(func(entrypoints.End)) func()                          { return func() {} }
func (*ready) Every(time.Duration, func(time.Time)) func()                 { return func() {} }
func (*ready) Sent(int, int)                                               {}
func (*ready) Received(int, int)                                           {}
func (*ready) Written(context.Context) error                               { return nil }
func (*ready) Cursor(dst []byte) []byte                                    { return dst }
func (*ready) Close(context.Context) error                                 { return nil }
func (*ready) Settle(context.Context, message.Settlement, ...uint64) error { return nil }

func (s *ready) Poll(int) (entrypoints.Burst, error) {
	s.frame[0] = s.want.Encoder.Append(s.frame[0][:0], s.delivery, nil)
	return entrypoints.Burst{Frames: s.frame[:], Messages: 1, Bytes: len(s.frame[0]), First: 1}, nil
}

// discard is a ResponseWriter to nowhere.
type discard struct{ header http.Header }

func (d discard) Header() http.Header            { return d.header }
func (discard) Write(p []byte) (int, error)      { return len(p), nil }
func (discard) WriteHeader(int)                  {}
func (discard) FlushError() error                { return nil }
func (discard) SetWriteDeadline(time.Time) error { return nil }
