package sse

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// closeTimeout bounds what is left to do at the broker when the client is gone.
const closeTimeout = 5 * time.Second

var heartbeatComment = []byte(":\n\n")

// stream is one client's event stream.
type stream struct {
	signals
	ctx     context.Context
	session entrypoints.Session
	feed    entrypoints.Feed
	out     entrypoints.Writer

	settling     context.Context // outlives the client: what it has must be settled
	settleFailed bool
}

// Serve streams until the client leaves or the gateway ends the session.
func (e *Entrypoint) Serve(w http.ResponseWriter, r *http.Request, s entrypoints.Session) error {
	want, byHeader, err := e.want(r)
	if err != nil {
		return err
	}
	st := &stream{signals: signals{wake: make(chan struct{}, 1)}, ctx: r.Context(), session: s}
	st.settling = context.WithoutCancel(st.ctx)
	want.Wake = st.wakeUp
	var gap *message.Gap
	st.feed, gap, err = subscribe(r.Context(), s, want, byHeader)
	if err != nil {
		return err
	}
	defer st.close()

	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // or nginx collects events before it passes them on
	h.Add("Vary", "Accept")
	st.out = entrypoints.NewWriter(w, r, e.writeTimeout)
	defer st.out.Finish()
	if err := st.hello(gap); err != nil {
		return err
	}
	defer st.listen(e)()
	return st.run()
}

// want reads what the client asks for. byHeader tells that the cursor came by
// Last-Event-ID.
func (e *Entrypoint) want(r *http.Request) (want entrypoints.Want, byHeader bool, err error) {
	want.Encoder = newEncoder(e)
	query, err := entrypoints.ParseQuery(r)
	if err != nil {
		return want, false, err
	}
	if want.From, _, err = query.Get("from"); err != nil {
		return want, false, err
	}
	cursor, _, err := query.Get("cursor")
	if err != nil {
		return want, false, err
	}
	id, _, err := query.Get("last-event-id")
	if err != nil {
		return want, false, err
	}
	want.Cursor = r.Header.Get("Last-Event-Id")
	byHeader = want.Cursor != ""
	if !byHeader {
		if cursor != "" && id != "" {
			return want, false, &entrypoints.Problem{
				Status: http.StatusBadRequest, Slug: "bad-query",
				Detail: "cursor and last-event-id mean the same: give one of them",
			}
		}
		want.Cursor = cursor + id
	}
	want.Resuming = want.Cursor != ""
	return want, byHeader, nil
}

// subscribe begins to read. A Last-Event-ID that can't be understood is told as a gap.
func subscribe(ctx context.Context, s entrypoints.Session, want entrypoints.Want, byHeader bool) (entrypoints.Feed, *message.Gap, error) {
	feed, err := s.Subscribe(ctx, want)
	if err == nil || !byHeader || message.KindOf(err) != message.BadInput {
		return feed, nil, err
	}
	detail := err.Error()
	want.Cursor, want.Resuming = "", false
	if feed, err = s.Subscribe(ctx, want); err != nil {
		return nil, nil, err // it was not the id, or not the id alone
	}
	return feed, &message.Gap{Reason: message.GapForeign, Detail: "Last-Event-ID: " + detail}, nil
}

// hello sends the headers and the first chunk at once, so that the client knows that it
// is connected.
func (st *stream) hello(gap *message.Gap) error {
	first := appendRetry(nil, reconnectDelay().Milliseconds())
	first = append(first, '\n')
	if gap != nil {
		first = appendGap(first, gap)
	}
	if err := st.out.Put(first); err != nil {
		return err
	}
	return st.flush()
}

// reconnectDelay is spread at random, so that clients that were cut off together do not
// come back together.
func reconnectDelay() time.Duration {
	return time.Second + rand.N(4*time.Second)
}

// listen connects the signals; the returned function disconnects them.
func (st *stream) listen(e *Entrypoint) (stop func()) {
	stopContext := context.AfterFunc(st.ctx, st.clientGone)
	forget := st.session.OnEnd(st.endBy)
	clock := sweep{signals: &st.signals, heartbeat: e.heartbeat}
	if e.Rotate > 0 {
		age := time.Duration(e.Rotate) - rand.N(time.Duration(e.Rotate)/5)
		clock.rotateAt = time.Now().Add(age)
	}
	stopClock := func() {}
	if interval := clock.interval(); interval > 0 {
		stopClock = st.session.Every(interval, clock.check)
	}
	return func() {
		stopClock()
		forget()
		stopContext()
	}
}

// run writes what is ready, until there is a reason to end, which it returns.
func (st *stream) run() error {
	for {
		if st.gone.Load() {
			return &entrypoints.Ended{End: entrypoints.End{Reason: entrypoints.EndClient, Detail: "the client left"}}
		}
		if end := st.end.Load(); end != nil {
			return st.goodbye(appendGoaway(nil, end), &entrypoints.Ended{End: *end})
		}
		burst, err := st.feed.Poll(0)
		if err != nil {
			return st.goodbye(appendError(nil, err), &entrypoints.Ended{End: entrypoints.End{Reason: entrypoints.EndBroker}, Err: err})
		}
		if !burst.Empty() {
			if err := st.write(&burst); err != nil {
				return err
			}
			continue
		}
		if st.pulse.Swap(false) {
			if err := st.out.Put(heartbeatComment); err != nil {
				return err
			}
			if err := st.flush(); err != nil {
				return err
			}
		}
		<-st.wake
	}
}

// write sends a burst and then tells the feed.
func (st *stream) write(burst *entrypoints.Burst) error {
	if burst.Gap != nil {
		if err := st.out.Put(appendGap(nil, burst.Gap)); err != nil {
			return err
		}
	}
	if err := st.out.PutAll(burst.Frames); err != nil {
		return err
	}
	if err := st.flush(); err != nil {
		return err
	}
	st.pulse.Store(false)
	st.session.Sent(burst.Messages, burst.Bytes)
	err := st.feed.Written(st.settling)
	if err != nil && !st.settleFailed {
		st.settleFailed = true // once is enough: a broker that is gone fails with each burst
		st.session.Logger().Warn("messages that were delivered could not be settled", zap.Error(err))
	}
	return nil
}

// goodbye writes the last event. It returns why the stream ends: ended, unless the client
// could not be told.
func (st *stream) goodbye(event []byte, ended *entrypoints.Ended) error {
	if err := st.out.Put(event); err != nil {
		return err
	}
	if err := st.flush(); err != nil {
		return err
	}
	return ended
}

func (st *stream) flush() error {
	if err := st.out.Flush(); err != nil {
		return err
	}
	st.lastWrite.Store(time.Now().UnixNano())
	return nil
}

func (st *stream) close() {
	ctx, cancel := context.WithTimeout(st.settling, closeTimeout)
	defer cancel()
	if err := st.feed.Close(ctx); err != nil {
		st.session.Logger().Warn("ending the subscription failed", zap.Error(err))
	}
}
