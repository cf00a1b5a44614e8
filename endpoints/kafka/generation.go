package kafka

import (
	"context"
	"slices"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// generation is a membership of the group.
type generation struct {
	identity
	ended bool
}

// enter takes over the partitions of a new generation.
func (m *member) enter(gen *kafkago.Generation) {
	next := &generation{identity: identity{m.sub.Name, gen.ID, gen.MemberID}}
	kept, begin := m.divide(next, gen.Assignments)
	// What settles while the generation ends must be committed before the next one.
	gen.Start(func(ctx context.Context) {
		<-ctx.Done()
		m.flush(m.ctx)
		m.mu().Lock()
		next.ended = true
		m.mu().Unlock()
	})
	gen.Start(func(ctx context.Context) {
		if begin = m.locate(ctx, next, begin); len(begin) > 0 {
			m.acquire(next, begin)
		}
		<-ctx.Done()
	})
	if kept > 0 {
		signal(m.dirty)
	}
}

// divide gives up the partitions that are ours no longer, and returns how many stay and
// which are new. A partition that was ours in the generation just before was nobody
// else's in between, so that its deliveries stay valid.
func (m *member) divide(next *generation, assignments map[string][]kafkago.PartitionAssignment) (kept int, begin map[partition]int64) {
	begin = make(map[partition]int64)
	for topic, parts := range assignments {
		for _, p := range parts {
			begin[partition{topic, int32(p.ID)}] = p.Offset
		}
	}
	m.mu().Lock()
	defer m.mu().Unlock()
	last := m.joined
	unbroken := last != nil && last.member == next.member && last.generation+1 == next.generation
	m.joined = next
	m.epoch++
	r := m.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range slices.Clone(r.order) {
		if _, ours := begin[p.partition]; ours && unbroken {
			delete(begin, p.partition)
			kept++
			continue
		}
		m.giveUp(p)
	}
	if len(m.revoked) > 0 {
		signal(r.wake)
	}
	return kept, begin
}

// giveUp ends reading a partition. Reader and account are locked.
func (m *member) giveUp(p *part) {
	m.reader.remove(p)
	p.track.drop()
	m.again = slices.DeleteFunc(m.again, func(r redelivery) bool { return r.p == p })
	m.revoked = append(m.revoked, p.lane)
}

// locate finds out where partitions begin for which nothing is committed: those that are
// newer than the subscription at their start, others where the subscription says. That
// is committed at once, so that the next generation begins there too.
func (m *member) locate(ctx context.Context, g *generation, begin map[partition]int64) map[partition]int64 {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		err := m.tryLocate(ctx, g, begin)
		if err == nil {
			return begin
		}
		pause(ctx, backoff(attempt, 50*time.Millisecond, time.Second))
	}
	return nil
}

func (m *member) tryLocate(ctx context.Context, g *generation, begin map[partition]int64) error {
	var lost []partition
	for p, offset := range begin {
		if offset < 0 {
			lost = append(lost, p)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stored, err := m.c.committed(ctx, m.sub.Name) // kafka-go takes any trouble for "nothing"
	if err != nil {
		return err
	}
	_, topics, err := m.c.discover(ctx, m.spec)
	if err != nil {
		return err
	}
	older, newer := m.byAge(lost, stored)
	first := make(map[partition]committed)
	if err := m.find(ctx, topics, older, beginningOf(m.sub.From), first); err != nil {
		return err
	}
	if err := m.find(ctx, topics, newer, earliest, first); err != nil {
		return err
	}
	if err := m.c.commit(ctx, g.identity, first); err != nil {
		return err
	}
	for _, p := range lost {
		if o, ok := stored[p]; ok {
			begin[p] = o.offset
		} else if o, ok := first[p]; ok {
			begin[p] = o.offset
		}
	}
	return nil
}

// find adds the offsets that partitions have at a time.
func (m *member) find(ctx context.Context, topics []*topicInfo, of []partition, at int64, into map[partition]committed) error {
	offsets, err := m.c.offsets(ctx, topics, of, at)
	for p, offset := range offsets {
		into[p] = committed{offset: offset}
	}
	return err
}

func (m *member) byAge(lost []partition, stored map[partition]committed) (older, newer []partition) {
	for _, p := range lost {
		switch _, ok := stored[p]; {
		case ok:
		case m.begun[p]:
			older = append(older, p)
		default:
			newer = append(newer, p)
		}
	}
	return older, newer
}

// acquire begins to read partitions.
func (m *member) acquire(g *generation, begin map[partition]int64) {
	ctx, cancel := context.WithTimeout(m.ctx, connectTimeout)
	defer cancel()
	t, err := m.c.metadata(ctx, m.spec.topics, m.spec.pattern != nil)
	if err != nil {
		t = &topology{} // the watcher finds the leaders, in a moment
		m.c.watch.hurry()
	}
	m.mu().Lock()
	defer m.mu().Unlock()
	if m.joined != g || m.closed {
		return
	}
	r := m.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	for at, offset := range begin {
		leader := noLeader
		if info := t.topics[at.topic]; info != nil && int(at.id) < len(info.leaders) {
			leader = info.leaders[at.id]
		}
		p := r.add(at, leader, offset, false, m.epoch)
		p.track = newTracker(&m.account, offset)
	}
	slices.SortFunc(r.order, func(a, b *part) int {
		return compareMarks(message.Mark{Channel: a.topic, Partition: a.id}, message.Mark{Channel: b.topic, Partition: b.id})
	})
	r.staff()
}
