package servicebustest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/Azure/go-amqp"
)

const (
	deadLetterSuffix = "/$DeadLetterQueue"
	transferSuffix   = "/$Transfer/$DeadLetterQueue"
)

var errEnded = errors.New("servicebustest: the entity or its namespace is gone")

// Queue creates a queue, or recreates it empty.
func (s *Server) Queue(name string, config Entity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.create(name, config)
}

// Topic creates a topic, or recreates it without subscriptions.
func (s *Server) Topic(name string, config Entity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delete(name)
	e := newEntity(s, name, config)
	e.topic = true
	s.entities[entityPath(name)] = e
}

// Subscription creates a subscription of a topic, or recreates it empty. A topic that is missing is created.
func (s *Server) Subscription(topic, name string, config Entity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner := s.entities[entityPath(topic)]
	if owner == nil {
		owner = newEntity(s, topic, Entity{})
		owner.topic = true
		s.entities[entityPath(topic)] = owner
	}
	e := s.create(topic+"/Subscriptions/"+name, config)
	e.parent = owner
	owner.subscriptions = append(owner.subscriptions, e)
}

// create makes an entity with its queue of dead letters.
func (s *Server) create(name string, config Entity) *entity {
	s.delete(name)
	e := newEntity(s, name, config)
	s.entities[entityPath(name)] = e
	letters := Entity{LockDuration: config.LockDuration, MaxMessageBytes: config.MaxMessageBytes}
	for _, suffix := range []string{deadLetterSuffix, transferSuffix} {
		sub := newEntity(s, name+suffix, letters)
		sub.parent = e
		s.entities[entityPath(name+suffix)] = sub
	}
	e.dead = s.entities[entityPath(name+deadLetterSuffix)]
	return e
}

// Delete removes an entity, a topic with its subscriptions; links are detached with amqp:not-found.
func (s *Server) Delete(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delete(name)
}

func (s *Server) delete(name string) {
	e := s.entities[entityPath(name)]
	if e == nil {
		return
	}
	if e.parent != nil {
		e.parent.subscriptions = slices.DeleteFunc(e.parent.subscriptions, func(other *entity) bool { return other == e })
	}
	for _, subscription := range slices.Clone(e.subscriptions) {
		s.delete(subscription.name)
	}
	for _, path := range []string{e.name, e.name + deadLetterSuffix, e.name + transferSuffix} {
		if part := s.entities[entityPath(path)]; part != nil {
			delete(s.entities, entityPath(path))
			part.end()
		}
	}
}

// end stops an entity and closes its links.
func (e *entity) end() {
	e.gone = true
	if e.timer != nil {
		e.timer.Stop()
	}
	reason := protocolError("amqp:not-found", "The messaging entity '%s' could not be found.", e.name)
	for _, links := range []map[*link]struct{}{e.senders, e.receivers} {
		for l := range links {
			if l.attached {
				l.detach(reason)
			} else {
				l.refuse(reason)
			}
		}
	}
	for _, t := range e.takers {
		close(t.done)
	}
	e.takers, e.waiting = nil, nil
}

func (s *Server) entity(name string) (*entity, error) {
	if e := s.entities[entityPath(name)]; e != nil && !s.closed {
		return e, nil
	}
	return nil, fmt.Errorf("servicebustest: no entity %q", name)
}

// Put stores messages in a queue, topic or subscription ("topic/Subscriptions/name"), or among the dead letters of
// one (…/$DeadLetterQueue), behind everybody's back. The header's delivery count is kept.
func (s *Server) Put(name string, messages ...*amqp.Message) error {
	parsed := make([]*message, len(messages))
	for i, message := range messages {
		encoded, err := message.MarshalBinary()
		if err != nil {
			return fmt.Errorf("servicebustest: %w", err)
		}
		if parsed[i], err = parseMessage(encoded); err != nil {
			return fmt.Errorf("servicebustest: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.entity(name)
	if err != nil {
		return err
	}
	if refusal := e.admit(parsed); refusal != nil {
		return refusal
	}
	e.store(parsed, s.now())
	return nil
}

// Take removes the next n ready messages of an entity, as Put names it, and waits for them until ctx ends; then it
// returns those it got, with the reason.
func (s *Server) Take(ctx context.Context, name string, n int) ([]*amqp.Message, error) {
	t := &taker{left: n, done: make(chan struct{})}
	s.mu.Lock()
	e, err := s.entity(name)
	if err == nil {
		e.takers = append(e.takers, t)
		e.pump()
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case <-t.done:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.takers = slices.DeleteFunc(e.takers, func(other *taker) bool { return other == t })
	if t.left > 0 {
		if err = ctx.Err(); err == nil {
			err = errEnded
		}
	}
	messages := make([]*amqp.Message, len(t.taken))
	for i, m := range t.taken {
		messages[i] = new(amqp.Message)
		if wrong := messages[i].UnmarshalBinary(m.appendTo(nil, false)); wrong != nil {
			return nil, fmt.Errorf("servicebustest: %w", wrong)
		}
	}
	return messages, err
}

// Counts says what an entity, as Put names it, holds; a topic only counts its links.
func (s *Server) Counts(name string) Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entities[entityPath(name)]
	if e == nil {
		return Counts{}
	}
	counts := e.counts
	counts.Scheduled, counts.Locked = e.scheduled, e.locked.Len()
	for _, g := range e.groups {
		counts.Locked += g.locked.Len()
	}
	counts.Deferred = e.deferred
	counts.Active = len(e.all) - e.scheduled - e.deferred
	if e.dead != nil {
		counts.DeadLetter = len(e.dead.all)
	}
	counts.Receivers = len(e.receivers)
	for l := range e.receivers {
		counts.Credit += int(l.credit)
	}
	return counts
}

// ExpireLocks ends all locks of messages and sessions of an entity now.
func (s *Server) ExpireLocks(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entities[entityPath(name)]
	if e == nil {
		return
	}
	now := s.now()
	for element := e.locked.Front(); element != nil; element = element.Next() {
		element.Value.(*message).lockedUntil = now
	}
	for element := e.lockedGroups.Front(); element != nil; element = element.Next() {
		element.Value.(*group).until = now
	}
	e.tick()
}

// token is a new lock token for nothing in particular.
func (s *Server) token() uuid { return s.tokenFor(0) }

// tokenFor is a new lock token that tells the sequence number of its message.
func (s *Server) tokenFor(sequence int64) (token uuid) {
	s.origin++
	binary.BigEndian.PutUint64(token[:], uint64(sequence))
	binary.BigEndian.PutUint64(token[8:], s.origin)
	return token
}

func tokenSequence(token uuid) int64 { return int64(binary.BigEndian.Uint64(token[:])) }
