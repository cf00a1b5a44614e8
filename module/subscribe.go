package module

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/module/feed"
)

// subscribeTimeout bounds how long a client waits for its subscription.
const subscribeTimeout = 5 * time.Second

// reading is a subscription being decided.
type reading struct {
	s    *session
	want entrypoints.Want
	ep   *endpoint
	ch   endpoints.Channel
	sub  message.Subscription
	opt  feed.Options
	// lost is the gap to tell first, because the cursor means nothing here.
	lost *message.Gap
	// lends: what the client is given stays lent to it after the exchange, for a receipt.
	lends bool
}

// Subscribe implements entrypoints.Session.
func (s *session) Subscribe(ctx context.Context, want entrypoints.Want) (entrypoints.Feed, error) {
	if !s.way.sub.caps.PerSession { // streams that cost nothing need no clock either
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, subscribeTimeout)
		defer cancel()
	}
	f, err := s.subscribeTo(ctx, s.way.sub, want)
	if down(err) && s.way.subFallback != nil {
		first := err
		if f, err = s.subscribeTo(ctx, s.way.subFallback, want); err != nil {
			err = errors.Join(first, err)
		}
	}
	if err != nil {
		return nil, err
	}
	if s.paced {
		f = feed.Paced(f, s.account.Receive, s.account.Refund, want.Wake, s.pacedOut)
	}
	return &counted{Feed: f, s: s}, nil
}

// pacedOut counts that a client lost messages to its receive_rate.
func (s *session) pacedOut() {
	s.app.metrics.limited.WithLabelValues(s.unit.def.ID, s.principal.Plan, "receive_rate").Inc()
}

func down(err error) bool { return err != nil && message.KindOf(err) == message.Unavailable }

func (s *session) subscribeTo(ctx context.Context, e *endpoint, want entrypoints.Want) (entrypoints.Feed, error) {
	rd := &reading{s: s, want: want, ep: e}
	if err := rd.decide(ctx); err != nil {
		return nil, err
	}
	f, err := rd.open(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = message.Errorf(message.Unavailable, "the broker of endpoint %s did not answer within %s: %w", e.name, subscribeTimeout, err)
	}
	if err != nil {
		return nil, err
	}
	if rd.lost != nil {
		f = &gapFirst{Feed: f, gap: rd.lost}
	}
	return f, nil
}

// decide turns what the client wants into a subscription.
func (rd *reading) decide(ctx context.Context) (err error) {
	s, needs := rd.s, &rd.s.way.needs
	if rd.ch, err = rd.ep.sub.Channel(valuesOf(s.request)); err != nil {
		return err
	}
	if rd.sub.From, err = startOf(needs, rd.want.From); err != nil {
		return err
	}
	if rd.want.Resuming {
		if err := rd.resume(ctx); err != nil {
			return err
		}
	}
	rd.sub.QoS = needs.QoS
	rd.sub.Mode, err = s.way.mode(&rd.ep.caps, s.identity.Anonymous, rd.sub.Position != nil)
	if err != nil {
		return err
	}
	if rd.sub.Mode == message.Broadcast && (rd.behind() || s.paced && rd.ep.caps.Positions) {
		rd.sub.Mode = message.Assigned
	}
	tracked := rd.sub.Mode == message.Member ||
		rd.sub.Mode == message.Assigned && needs.QoS == message.AtLeastOnce && !s.identity.Anonymous
	if tracked {
		if rd.sub.Name, err = s.unit.ids.name(s); err != nil {
			return err
		}
	}
	if rd.want.Brief && rd.want.Limit > 0 {
		rd.sub.Window = message.Window{Messages: rd.want.Limit, Bytes: max(64<<10, rd.want.Limit<<10)}
	}
	acks := needs.Acks && needs.QoS == message.AtLeastOnce
	rd.lends = acks && rd.want.Brief && (rd.sub.Mode == message.Member || rd.sub.Mode == message.Shared)
	rd.opt = feed.Options{
		Mode: rd.sub.Mode, QoS: needs.QoS, Encoder: rd.want.Encoder, Wake: rd.want.Wake,
		ClientAcks: acks && (rd.lends || !rd.want.Brief),
		Bookmark:   rd.sub.Mode == message.Assigned && rd.sub.Name != "" && !rd.want.Brief,
		Dropped:    func(n int) { s.app.metrics.dropped.WithLabelValues(s.unit.def.ID, needs.Type).Add(float64(n)) },
	}
	if s.unit.def.SlowClient == "close" && !s.paced { // the plan has slowed it down, not the client
		rd.opt.Slow = func() {
			s.finish(entrypoints.End{Reason: entrypoints.EndSlow, Detail: "the client read too slowly", Retry: spread(1)})
		}
	}
	return nil
}

// behind says whether reading begins in the past, which a broadcast does not.
func (rd *reading) behind() bool {
	from := &rd.sub.From
	if from.Kind == message.StartDefault && rd.ep.caps.Earliest && rd.s.way.needs.QoS != message.None {
		from.Kind = message.StartEarliest
	}
	return rd.ep.caps.Positions && (from.Kind == message.StartEarliest || from.Kind == message.StartTime)
}

// startOf says where to begin: as the configuration says, or as the client wishes where
// the configuration lets it.
func startOf(needs *entrypoints.Needs, wish string) (message.Start, error) {
	text := needs.From
	switch {
	case needs.From == "client":
		text = wish
	case wish != "":
		return message.Start{}, message.Errorf(message.BadInput, "from: this entrypoint does not let clients choose where to begin")
	}
	start, err := message.ParseStart(text)
	if err != nil {
		return start, message.Errorf(message.BadInput, "from: %w", err)
	}
	return start, nil
}

// resume reads the cursor, or redeems the receipt, that the client presented.
func (rd *reading) resume(ctx context.Context) error {
	if !rd.ep.caps.Positions {
		if isReceipt(rd.want.Cursor) {
			rd.s.unit.receipts.redeem(ctx, rd.want.Cursor, rd.s.holder())
			return nil
		}
		rd.lost = &message.Gap{Reason: message.GapUnresumable, Detail: "this channel can't be read from a position; reading begins anew"}
		return nil
	}
	pos, err := message.ParseCursor(rd.want.Cursor)
	if err != nil {
		return message.Errorf(message.BadInput, "cursor: %w", err)
	}
	rd.sub.Position = &pos
	return nil
}

// open subscribes.
func (rd *reading) open(ctx context.Context) (entrypoints.Feed, error) {
	if rd.sub.Mode == message.Broadcast {
		return rd.broadcast(ctx)
	}
	// Without bookmarks to keep, reading by position can go over to the shared log.
	// A client that acknowledges needs a stream that keeps account for it.
	// One that is slowed down to a rate would only fall out of it.
	shareable := rd.ep.caps.Copy && !rd.ep.caps.PerSession && !rd.opt.ClientAcks && !rd.s.paced
	if rd.sub.Mode == message.Assigned && rd.sub.Name == "" && shareable {
		return rd.catchUp(ctx)
	}
	return rd.own(ctx)
}

func (rd *reading) broadcast(ctx context.Context) (entrypoints.Feed, error) {
	log, err := rd.s.unit.logs.get(ctx, rd.ep, rd.ch)
	if err != nil {
		return nil, err
	}
	return log.Follow(rd.opt, rd.opener()), nil
}

// catchUp reads from the client's position on. A brief exchange starts no shared log, but
// uses one that is there.
func (rd *reading) catchUp(ctx context.Context) (entrypoints.Feed, error) {
	if rd.want.Brief && !rd.s.unit.logs.has(rd.ep, rd.ch) {
		return rd.own(ctx)
	}
	log, err := rd.s.unit.logs.get(ctx, rd.ep, rd.ch)
	if err != nil {
		return nil, err
	}
	return log.FollowFrom(ctx, rd.opt, rd.sub.Position, rd.opener())
}

// opener opens an own stream; positions that the session itself has reached replace the
// client's.
func (rd *reading) opener() feed.Opener {
	if !rd.ep.caps.Positions {
		return nil
	}
	return func(ctx context.Context, at *message.Position) (message.Stream, error) {
		sub := rd.sub
		sub.Mode, sub.Position = message.Assigned, at
		return rd.ep.sub.Subscribe(ctx, rd.ch, sub)
	}
}

// own subscribes for this session alone.
func (rd *reading) own(ctx context.Context) (entrypoints.Feed, error) {
	if rd.lends {
		return rd.lend(ctx)
	}
	stream, err := rd.ep.sub.Subscribe(ctx, rd.ch, rd.sub)
	if err != nil {
		return nil, err
	}
	// A brief exchange that presents a cursor says by it that it has what came before.
	if b, ok := stream.(message.Bookmarker); ok && rd.want.Brief && rd.sub.Name != "" && rd.sub.Position != nil {
		if err := b.Bookmark(ctx, *rd.sub.Position); err != nil {
			return nil, errors.Join(err, stream.Close(ctx))
		}
	}
	return feed.Own(stream, rd.opt), nil
}

// lend subscribes for a response whose messages the client confirms by a receipt.
func (rd *reading) lend(ctx context.Context) (entrypoints.Feed, error) {
	kept, who := rd.s.unit.receipts, rd.s.holder()
	if err := kept.reserve(who, rd.want.AckWait); err != nil {
		return nil, err
	}
	stream, err := rd.ep.sub.Subscribe(ctx, rd.ch, rd.sub)
	if err != nil {
		kept.unreserve(who)
		return nil, err
	}
	return kept.lend(feed.Own(stream, rd.opt), who, rd.want.AckWait), nil
}

func (s *session) holder() holder { return holder{key: s.key, client: s.identity.Client} }

// gapFirst tells a gap before anything else.
type gapFirst struct {
	entrypoints.Feed
	gap *message.Gap
}

// Poll implements entrypoints.Feed.
func (g *gapFirst) Poll(limit int) (entrypoints.Burst, error) {
	if g.gap != nil {
		gap := g.gap
		g.gap = nil
		return entrypoints.Burst{Gap: gap, First: 1}, nil
	}
	return g.Feed.Poll(limit)
}

// counted counts gaps, which only happen here.
type counted struct {
	entrypoints.Feed
	s *session
}

// Poll implements entrypoints.Feed.
func (c *counted) Poll(limit int) (entrypoints.Burst, error) {
	burst, err := c.Feed.Poll(limit)
	if burst.Gap != nil {
		c.s.app.metrics.gaps.WithLabelValues(c.s.unit.def.ID, c.s.way.needs.Type, string(burst.Gap.Reason)).Inc()
	}
	return burst, err
}
