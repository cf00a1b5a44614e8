package servicebus

import (
	"context"
	"errors"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
)

// sender is a link to a queue or topic, on one connection.
type sender struct {
	*azservicebus.Sender
	conn link.Conn[*connection]
	// seen is how many links the service had detached when this one was made. Any that it
	// detaches later may be this one.
	seen uint64
	// What follows is guarded by the outlet.
	users   int
	retired bool // closed by the last user
}

// fresh reports whether the link is not known to be of no use.
func (s *sender) fresh(conn link.Conn[*connection]) bool {
	return s != nil && s.conn.Epoch == conn.Epoch && s.seen == conn.C.wire.detaches()
}

// open returns a sender whose link stands, and which the caller gives back. An error means
// that nothing was sent.
func (o *outlet) open(ctx context.Context) (*sender, error) {
	for {
		conn, err := living(ctx, o.p.link)
		if err != nil {
			return nil, err
		}
		if s := o.take(conn); s != nil {
			return s, nil
		}
		select {
		case o.opening <- struct{}{}:
		case <-ctx.Done():
			return nil, fault(o.what, ctx.Err())
		}
		s := o.take(conn) // somebody else may have made it meanwhile
		if s == nil {
			s, err = o.attach(ctx, conn)
		}
		<-o.opening
		if err == nil || ctx.Err() != nil || conn.C.wire.failure() == nil {
			return s, err
		}
	}
}

// living returns a connection that is not known to be broken: a link learns of that a
// moment after the wire.
func living(ctx context.Context, l *link.Link[*connection]) (link.Conn[*connection], error) {
	for {
		conn, err := l.Get(ctx)
		if err != nil || conn.C.wire.failure() == nil {
			return conn, err
		}
		select {
		case <-conn.Gone:
		case <-ctx.Done():
			return conn, fault("connecting", ctx.Err())
		}
	}
}

// take returns the current sender, if it is of use.
func (o *outlet) take(conn link.Conn[*connection]) *sender {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.cur.fresh(conn) {
		return nil
	}
	o.cur.users++
	return o.cur
}

// attach makes a link, and waits until it stands.
func (o *outlet) attach(ctx context.Context, conn link.Conn[*connection]) (*sender, error) {
	seen := conn.C.wire.detaches()
	begun := time.Now()
	raw, err := conn.C.NewSender(o.entity, nil)
	if err == nil {
		// The library makes links when they are first needed. An empty batch needs one.
		if _, err = raw.NewMessageBatch(ctx, nil); err != nil {
			closeSoon(raw)
		}
	}
	if err != nil {
		o.complain(ctx, conn, begun)
		return nil, fault(o.what, err)
	}
	s := &sender{Sender: raw, conn: conn, seen: seen, users: 1}
	o.mu.Lock()
	old := o.cur
	o.cur = s
	if o.gone {
		s.retired = true
	}
	o.mu.Unlock()
	o.discard(old)
	return s, nil
}

// complain has the connection made anew if the service says nothing at all any more.
func (o *outlet) complain(ctx context.Context, conn link.Conn[*connection], begun time.Time) {
	if ctx.Err() != nil && o.p.ctx.Err() == nil && conn.C.wire.silentSince(begun) {
		o.p.link.Drop(conn.Epoch, errMute)
	}
}

// release gives a sender back. A broken one is not used again.
func (o *outlet) release(s *sender, broken bool) {
	o.mu.Lock()
	s.users--
	if broken || o.gone {
		s.retired = true
		if o.cur == s {
			o.cur = nil
		}
	}
	unused := s.retired && s.users == 0
	o.mu.Unlock()
	if unused {
		closeSoon(s.Sender)
	}
}

// discard closes a sender as soon as nobody uses it.
func (o *outlet) discard(s *sender) {
	if s == nil {
		return
	}
	o.mu.Lock()
	unused := s.users == 0 && !s.retired
	s.retired = true
	o.mu.Unlock()
	if unused {
		closeSoon(s.Sender)
	}
}

// retire is the end of an outlet that was forgotten. What waits is sent first.
func (o *outlet) retire() {
	o.mu.Lock()
	o.gone = true
	s := o.cur
	o.cur = nil
	o.mu.Unlock()
	o.discard(s)
}

// errMute is why a connection is given up on which nothing comes.
var errMute = errors.New("nothing was answered")
