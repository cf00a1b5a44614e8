package kafka

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	sessionTimeout = 10 * time.Second
	// heartbeat is also how soon a member notices that others have come or gone.
	heartbeat     = time.Second
	rejoinDelay   = 300 * time.Millisecond
	commitDelay   = 150 * time.Millisecond
	leavePatience = 3 * time.Second
)

// member reads as one of the consumers of a group. kafka-go does the membership; which
// partition is read from where, and what is committed, is decided here.
type member struct {
	*reader
	account
	spec  *spec
	sub   message.Subscription
	watch *watched

	// begun are the partitions of topics that the group had no part in when the subscription
	// began: they begin where the subscription says. Others without an offset are newer
	// than the group's, and are read from their start.
	begun map[partition]bool
	// regroup asks for a new membership, because the set of topics has changed.
	regroup chan struct{}
	// dirty asks for a commit.
	dirty chan struct{}
	// left is closed when the group has been left.
	left chan struct{}

	commits sync.Mutex // one at a time, so that none overtakes another

	// What follows is guarded by the account's mutex.
	topics  []string // that the group is joined with, or is to be
	joined  *generation
	epoch   uint64
	again   []redelivery // released, to be delivered once more
	revoked []string
	closed  bool
}

type redelivery struct {
	p *part
	d message.Delivery
}

func (c *client) subscribeMember(ctx context.Context, s *spec, sub message.Subscription) (message.Stream, error) {
	if sub.Name == "" {
		return nil, message.Errorf(message.IdentityRequired, "a group needs a name")
	}
	_, topics, err := c.discover(ctx, s)
	if err != nil {
		return nil, err
	}
	m := &member{
		reader: newReader(c, sub.Window), spec: s, sub: sub,
		begun:   make(map[partition]bool),
		regroup: make(chan struct{}, 1), dirty: make(chan struct{}, 1), left: make(chan struct{}),
	}
	m.topics = names(topics)
	if err := m.anchor(ctx, topics); err != nil {
		m.close()
		return nil, err
	}
	m.reader.wg.Go(m.commitLoop)
	m.watch = &watched{spec: s, update: m.update}
	c.watch.add(m.watch)
	go m.stay()
	return m, nil
}

func names(topics []*topicInfo) []string {
	all := make([]string, len(topics))
	for i, t := range topics {
		all[i] = t.name
	}
	return all
}

// anchor stores where the group begins to read topics before it joins with them. Else one
// that begins at the end would begin at another end after each rebalance, and lose what
// came between.
func (m *member) anchor(ctx context.Context, topics []*topicInfo) error {
	stored, err := m.c.committed(ctx, m.sub.Name)
	if err != nil {
		return err
	}
	fresh := m.unread(topics, stored)
	if len(fresh) == 0 {
		return nil
	}
	from, err := m.c.startAt(ctx, fresh, m.sub.From)
	if err != nil {
		return err
	}
	first := make(map[partition]committed)
	for _, mark := range from.marks {
		p := partition{mark.Channel, mark.Partition}
		first[p] = committed{offset: mark.Next}
		m.begun[p] = true
	}
	err = m.c.commitOnce(ctx, nobody(m.sub.Name), first)
	if isCode(err, kafkago.UnknownMemberId, kafkago.IllegalGeneration, kafkago.RebalanceInProgress) {
		return nil // the group has members already, and one of them did it
	}
	return err
}

// unread are the topics that the group has no offsets for. What a group read under another
// configuration says nothing about them, but whoever follows a pattern reads a topic that
// came later from its start.
func (m *member) unread(topics []*topicInfo, stored map[partition]committed) []*topicInfo {
	read := make(map[string]bool)
	for p := range stored {
		read[p.topic] = true
	}
	var fresh []*topicInfo
	for _, t := range topics {
		switch {
		case !read[t.name]:
			fresh = append(fresh, t)
		case m.spec.pattern != nil:
			return nil
		}
	}
	return fresh
}

// update follows the cluster.
func (m *member) update(t *topology) {
	m.relead(t)
	if m.spec.pattern == nil {
		return
	}
	found := names(m.spec.matching(t))
	m.mu().Lock()
	changed := !slices.Equal(found, m.topics)
	if changed {
		m.topics = found
	}
	m.mu().Unlock()
	if changed {
		signal(m.regroup)
	}
}

// mu is the account's mutex: reader and account both have one.
func (m *member) mu() *sync.Mutex { return &m.account.mu }

// stay keeps the stream in its group until it ends.
func (m *member) stay() {
	defer close(m.left)
	for m.ctx.Err() == nil {
		select {
		case <-m.regroup: // the topics that it is about are the ones that are joined now
		default:
		}
		m.mu().Lock()
		topics := slices.Clone(m.topics)
		m.mu().Unlock()
		if len(topics) == 0 {
			await(m.ctx, m.regroup, time.Time{}) // a pattern that matches nothing yet
			continue
		}
		m.join(topics)
	}
}

// join is one membership with one set of topics.
func (m *member) join(topics []string) {
	group, err := kafkago.NewConsumerGroup(kafkago.ConsumerGroupConfig{
		ID: m.sub.Name, Brokers: m.c.cfg.Brokers, Dialer: m.c.dialer, Topics: topics,
		HeartbeatInterval: heartbeat, SessionTimeout: sessionTimeout, RebalanceTimeout: sessionTimeout,
		JoinGroupBackoff: rejoinDelay, Timeout: connectTimeout,
		WatchPartitionChanges: true, PartitionWatchInterval: watchInterval,
		StartOffset: kafkago.FirstOffset,
	})
	if err != nil {
		m.fail(message.Errorf(message.Internal, "joining group %s: %w", m.sub.Name, err))
		return
	}
	defer group.Close()
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-m.regroup:
			cancel()
		case <-stop:
		}
	}()
	for {
		gen, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
			m.flushBeforeLeaving()
			return
		case err == nil:
			m.enter(gen)
		default:
			m.refused(err)
		}
	}
}

// refused notes why the group could not be joined; most reasons pass.
func (m *member) refused(err error) {
	code, ok := errors.AsType[kafkago.Error](err)
	if !ok {
		m.c.watch.hurry() // finds out how the cluster is
		return
	}
	if !transient(code) {
		m.fail(brokerError("group "+m.sub.Name, code))
	}
}

// Close implements message.Stream: it commits what is settled and leaves the group, so
// that others get the partitions at once.
func (m *member) Close(ctx context.Context) error {
	m.mu().Lock()
	first := !m.closed
	m.closed = true
	m.mu().Unlock()
	ctx, cancel := context.WithTimeout(ctx, leavePatience)
	defer cancel()
	if first {
		m.c.watch.remove(m.watch)
		m.flush(ctx)
		m.close()
	}
	select {
	case <-m.left:
	case <-ctx.Done(): // a rebalance is under way; leaving goes on in the background
	}
	return nil
}

var _ message.Stream = (*member)(nil)
