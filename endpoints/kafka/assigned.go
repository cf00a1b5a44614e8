package kafka

import (
	"context"
	"hash/fnv"
	"slices"
	"sync"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// bookmarkSuffix makes the group that holds a name's bookmark from the name.
const bookmarkSuffix = ".bookmark"

// assigned reads all partitions of a channel by its own positions, and competes with
// nobody.
type assigned struct {
	*reader
	spec   *spec
	window message.Window
	origin uint64
	group  string // of the bookmark; "" without a name
	watch  *watched

	// receiving guards what belongs to whoever reads, so that Position can ask.
	receiving sync.Mutex

	mu sync.Mutex
	// gap is told before anything else.
	gap *message.Gap
	// anew are partitions whose bookmark may go backwards, because their log is not the
	// one that it was made for.
	anew map[partition]bool
	once sync.Once
}

// origin of a stream: where each partition begins.
type origins struct {
	marks []message.Mark
	gap   *message.Gap
	anew  map[partition]bool
}

func (c *client) subscribeAssigned(ctx context.Context, s *spec, sub message.Subscription) (message.Stream, error) {
	t, topics, err := c.discover(ctx, s)
	if err != nil {
		return nil, err
	}
	a := &assigned{spec: s, window: sub.Window, origin: fingerprint(t.cluster, s)}
	if sub.Name != "" {
		a.group = sub.Name + bookmarkSuffix
	}
	from, err := c.origins(ctx, topics, a, sub)
	if err != nil {
		return nil, err
	}
	a.gap, a.anew = from.gap, from.anew
	a.reader = newReader(c, sub.Window)
	a.begin(topics, from.marks)
	return a, nil
}

func (a *assigned) begin(topics []*topicInfo, marks []message.Mark) {
	r, start := a.reader, message.Position{Marks: marks}
	r.mu.Lock()
	for _, info := range topics {
		for id, leader := range info.leaders {
			m, _ := start.Find(info.name, int32(id))
			p := r.add(partition{info.name, int32(id)}, leader, m.Next, false, 0)
			p.mark, p.last = m, m
		}
	}
	r.staff()
	r.mu.Unlock()
	a.watch = &watched{spec: a.spec, update: a.update}
	r.c.watch.add(a.watch)
}

// partitions of topics, in order.
func partitions(topics []*topicInfo) []partition {
	var all []partition
	for _, t := range topics {
		for id := range t.leaders {
			all = append(all, partition{t.name, int32(id)})
		}
	}
	return all
}

// origins finds out where to begin: at the position that is given, else at the name's
// bookmark, else where From says.
func (c *client) origins(ctx context.Context, topics []*topicInfo, a *assigned, sub message.Subscription) (origins, error) {
	if sub.Position != nil {
		if sub.Position.Origin == a.origin {
			return c.continueAt(ctx, topics, sub.Position.Marks)
		}
		from, err := c.startAt(ctx, topics, sub.From)
		from.gap = &message.Gap{Reason: message.GapForeign, Detail: "the cursor belongs to another channel or cluster"}
		return from, err
	}
	if a.group != "" {
		stored, err := c.committed(ctx, a.group)
		if err != nil {
			return origins{}, err
		}
		var marks []message.Mark
		for _, p := range partitions(topics) {
			if o, ok := stored[p]; ok {
				marks = append(marks, message.Mark{Channel: p.topic, Partition: p.id, Next: o.offset, Time: timeOfNote(o.note)})
			}
		}
		if len(marks) > 0 {
			return c.continueAt(ctx, topics, marks)
		}
	}
	return c.startAt(ctx, topics, sub.From)
}

// beginningOf is a start as ListOffsets understands it.
func beginningOf(from message.Start) int64 {
	switch from.Kind {
	case message.StartEarliest:
		return earliest
	case message.StartTime:
		return max(from.Time.UnixMilli(), 0)
	}
	return latest
}

// startAt begins at the end, at the start, or at a time.
func (c *client) startAt(ctx context.Context, topics []*topicInfo, from message.Start) (origins, error) {
	all := partitions(topics)
	offsets, err := c.offsets(ctx, topics, all, beginningOf(from))
	if err != nil {
		return origins{}, err
	}
	var o origins
	for _, p := range all {
		o.marks = append(o.marks, message.Mark{Channel: p.topic, Partition: p.id, Next: offsets[p]})
	}
	return o, nil
}

// continueAt goes on at marks, as far as that can be done.
func (c *client) continueAt(ctx context.Context, topics []*topicInfo, marks []message.Mark) (origins, error) {
	at := message.Position{Marks: marks}
	var known []message.Mark
	var fresh []partition
	for _, p := range partitions(topics) {
		if m, ok := at.Find(p.topic, p.id); ok {
			known = append(known, m)
		} else {
			fresh = append(fresh, p)
		}
	}
	findings, err := c.verify(ctx, topics, known)
	if err != nil {
		return origins{}, err
	}
	starts, err := c.offsets(ctx, topics, fresh, earliest)
	if err != nil {
		return origins{}, err
	}
	o := origins{anew: make(map[partition]bool)}
	for _, m := range known {
		p := partition{m.Channel, m.Partition}
		if f := findings[p]; f.reason != "" {
			o.gap = joinGaps(o.gap, gapAt(f.reason, p, m.Next, f.next))
			o.anew[p] = f.reason == message.GapRecreated
			m = message.Mark{Channel: p.topic, Partition: p.id, Next: f.next}
		}
		o.marks = append(o.marks, m)
	}
	if len(known) < len(marks) {
		o.gap = joinGaps(o.gap, &message.Gap{Reason: message.GapRecreated, Detail: "a topic or partition of the cursor no longer exists"})
	}
	for _, p := range fresh {
		o.marks = append(o.marks, message.Mark{Channel: p.topic, Partition: p.id, Next: starts[p]})
	}
	slices.SortFunc(o.marks, compareMarks)
	return o, nil
}

// update follows the cluster: new leaders, new partitions, new topics.
func (a *assigned) update(t *topology) {
	a.relead(t)
	r := a.reader
	r.mu.Lock()
	for _, info := range a.spec.matching(t) {
		if info.code != 0 {
			continue
		}
		for id, leader := range info.leaders {
			at := partition{info.name, int32(id)}
			if r.parts[at] == nil {
				r.add(at, leader, 0, true, 0)
			}
		}
	}
	n := len(r.order)
	r.staff()
	r.mu.Unlock()
	if n > message.MaxPartitions {
		r.fail(tooManyPartitions(n))
	}
}

// Receive implements message.Stream.
func (a *assigned) Receive(ctx context.Context) (message.Batch, error) {
	for {
		var b message.Batch
		if err := a.ended(); err != nil {
			return b, err
		}
		a.mu.Lock()
		b.Gap, a.gap = a.gap, nil
		a.mu.Unlock()
		a.receiving.Lock()
		err := a.fill(&b, room{messages: a.window.Messages, bytes: a.window.Bytes, lone: true}, nil)
		a.receiving.Unlock()
		if err != nil {
			a.fail(err) // the next call tells, after what is good has been delivered
		}
		if len(b.Deliveries) > 0 || b.Gap != nil {
			return b, nil
		}
		if err := a.wait(ctx); err != nil {
			return b, err
		}
	}
}

// Settle implements message.Stream. An assigned stream owes nothing to the broker.
func (a *assigned) Settle(context.Context, message.Settlement, ...message.Delivery) error {
	return a.ended()
}

// Close implements message.Stream.
func (a *assigned) Close(context.Context) error {
	a.once.Do(func() {
		a.c.watch.remove(a.watch)
		a.close()
		if a.group != "" {
			a.c.forget(a.group)
		}
	})
	return nil
}

// Position implements message.Positioned.
func (a *assigned) Position() message.Position {
	a.receiving.Lock()
	defer a.receiving.Unlock()
	return a.position(a.origin)
}

// Bookmark implements message.Bookmarker.
func (a *assigned) Bookmark(ctx context.Context, at message.Position) error {
	if a.group == "" {
		return message.Errorf(message.IdentityRequired, "a stream without a name has no bookmark")
	}
	if at.Origin != a.origin {
		return message.Errorf(message.BadInput, "the position belongs to another channel or cluster")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	h := fnv.New32a()
	_, _ = h.Write([]byte(a.group)) // a hash takes everything
	lock := &a.c.bookmarks[h.Sum32()%uint32(len(a.c.bookmarks))]
	lock.Lock()
	defer lock.Unlock()
	stored, err := a.c.committed(ctx, a.group)
	if err != nil {
		return err
	}
	a.mu.Lock()
	forward := make(map[partition]committed)
	for _, m := range at.Marks {
		p := partition{m.Channel, m.Partition}
		if old, ok := stored[p]; !ok || m.Next > old.offset || a.anew[p] && m.Next != old.offset {
			forward[p] = committed{m.Next, noteOf(m)}
		}
	}
	a.mu.Unlock()
	if err := a.c.commit(ctx, nobody(a.group), forward); err != nil {
		return err
	}
	a.mu.Lock()
	for p := range forward {
		delete(a.anew, p)
	}
	a.mu.Unlock()
	return nil
}

var (
	_ message.Stream     = (*assigned)(nil)
	_ message.Positioned = (*assigned)(nil)
	_ message.Bookmarker = (*assigned)(nil)
)
