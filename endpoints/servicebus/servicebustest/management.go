package servicebustest

import (
	"slices"
	"time"
)

const maxPeek = 250 // messages that one peek returns at most

// manage does an operation of $management.
func (l *link) manage(r *request, now time.Time) reply {
	e := l.entity
	switch r.operation {
	case "com.microsoft:renew-lock":
		return e.renewLocks(r, now)
	case "com.microsoft:renew-session-lock":
		return e.renewSession(r)
	case "com.microsoft:get-session-state", "com.microsoft:set-session-state":
		return e.sessionState(r, now)
	case "com.microsoft:get-message-sessions":
		return e.sessionIDs(r)
	case "com.microsoft:update-disposition":
		return e.updateDisposition(r)
	case "com.microsoft:peek-message":
		return e.peek(r, l.session)
	case "com.microsoft:receive-by-sequence-number":
		return e.receiveDeferred(r, now)
	case "com.microsoft:schedule-message":
		return e.scheduleMessages(r)
	case "com.microsoft:cancel-scheduled-message":
		return e.cancelScheduled(r)
	}
	return refusal(protocolError("amqp:not-implemented", "operation %q", r.operation))
}

// tokens is the lock tokens of a request.
func (r *request) tokens() (tokens []uuid) {
	list, _ := r.arg("lock-tokens").([]any)
	for _, element := range list {
		if token, ok := element.(uuid); ok {
			tokens = append(tokens, token)
		}
	}
	return tokens
}

func (r *request) numbers() (numbers []int64) {
	list, _ := r.arg("sequence-numbers").([]any)
	for _, element := range list {
		if number, ok := element.(int64); ok {
			numbers = append(numbers, number)
		}
	}
	return numbers
}

func (e *entity) renewLocks(r *request, now time.Time) reply {
	var expirations []time.Time
	for _, token := range r.tokens() {
		m := e.held(token)
		if m == nil {
			return refusal(lockLost())
		}
		if m.group == nil || m.group.link == nil {
			m.lockedUntil = now.Add(e.config.LockDuration)
			e.locked.MoveToBack(m.lock)
			e.arm(m.lockedUntil)
		}
		e.counts.Renewed++
		expirations = append(expirations, m.lockedUntil)
	}
	return reply{status: 200, description: "OK", body: map[string]any{"expirations": expirations}}
}

// session is the session that a request names, if somebody has it locked.
func (e *entity) lockedSession(r *request) (*group, *wireError) {
	id, _ := r.arg("session-id").(string)
	if g := e.groups[id]; g != nil && g.link != nil {
		return g, nil
	}
	return nil, protocolError("com.microsoft:session-lock-lost", "The session lock has expired on the session with id '%s'.", id)
}

func (e *entity) renewSession(r *request) reply {
	g, lost := e.lockedSession(r)
	if lost != nil {
		return refusal(lost)
	}
	g.renew()
	e.counts.Renewed++
	return reply{status: 200, description: "OK", body: map[string]any{"expiration": g.until}}
}

func (e *entity) sessionState(r *request, now time.Time) reply {
	g, lost := e.lockedSession(r)
	if lost != nil {
		return refusal(lost)
	}
	if r.operation == "com.microsoft:set-session-state" {
		g.state, _ = r.arg("session-state").([]byte)
		g.changed = now
		return reply{status: 200, description: "OK"}
	}
	var state any
	if g.state != nil {
		state = g.state
	}
	return reply{status: 200, description: "OK", body: map[string]any{"session-state": state}}
}

// sessionIDs lists the sessions with messages or state; asked with a time that is not the end of time, those whose
// state was set after it.
func (e *entity) sessionIDs(r *request) reply {
	since, _ := r.arg("last-updated-time").(time.Time)
	skip, _ := r.arg("skip").(int32)
	top, _ := r.arg("top").(int32)
	var ids []string
	for id, g := range e.groups {
		listed := g.stored > 0 || g.state != nil
		if since.Year() < 9999 {
			listed = g.changed.After(since)
		}
		if listed {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	ids = ids[min(max(int(skip), 0), len(ids)):]
	ids = ids[:min(max(int(top), 0), len(ids))]
	if len(ids) == 0 {
		return reply{status: 204, description: "No content"}
	}
	return reply{status: 200, description: "OK", body: map[string]any{"skip": skip + int32(len(ids)), "sessions-ids": ids}}
}

func (e *entity) updateDisposition(r *request) reply {
	var o outcome
	switch status, _ := r.arg("disposition-status").(string); status {
	case "completed":
		o.code = codeAccepted
	case "abandoned":
		o.code = codeModified
	case "suspended":
		o.code = codeRejected
		o.err.condition, _ = r.arg("deadletter-reason").(string)
		o.err.description, _ = r.arg("deadletter-description").(string)
	case "defered", "deferred": // the service's own spelling is the first
		o.code, o.undeliverable = codeModified, true
	default:
		return refusal(protocolError("amqp:not-allowed", "disposition status %q", status))
	}
	o.properties, _ = r.arg("properties-to-modify").(map[any]any)
	for _, token := range r.tokens() {
		m := e.held(token)
		if m == nil {
			return refusal(lockLost())
		}
		e.settle(m, o)
	}
	return reply{status: 200, description: "OK"}
}

// peek shows messages of any state, from a sequence number on: those of the session that is named, or that the
// client's link has.
func (e *entity) peek(r *request, se *session) reply {
	from, _ := r.arg("from-sequence-number").(int64)
	count, _ := r.arg("message-count").(int32)
	id, only := r.arg("session-id").(string)
	if name, ok := r.properties["associated-link-name"].(string); ok && !only {
		id, only = se.c.sessionOf(name)
	}
	var numbers []int64
	for number, m := range e.all {
		if number >= from && (!only || m.hasSession && m.session == id) {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	var list []any
	for _, number := range numbers[:min(len(numbers), max(int(count), 0), maxPeek)] {
		list = append(list, map[string]any{"message": e.all[number].appendTo(nil, false)})
	}
	if len(list) == 0 {
		return reply{status: 204, description: "No content"}
	}
	return reply{status: 200, description: "OK", body: map[string]any{"messages": list}}
}

// sessionOf is the id of the session that a link of this name has.
func (c *conn) sessionOf(name string) (string, bool) {
	for _, se := range c.sessions {
		for _, l := range se.links {
			if l.name == name && l.group != nil {
				return l.group.id, true
			}
		}
	}
	return "", false
}

func (e *entity) receiveDeferred(r *request, now time.Time) reply {
	var messages []*message
	for _, number := range r.numbers() {
		m := e.all[number]
		if m == nil || m.state != stateDeferred {
			return refusal(protocolError("com.microsoft:message-not-found", "Failed to lock one or more specified messages. The message does not exist."))
		}
		messages = append(messages, m)
	}
	var list []any
	mode, _ := r.arg("receiver-settle-mode").(uint32)
	for _, m := range messages {
		e.deferred--
		e.counts.Delivered++
		if mode == 0 {
			list = append(list, map[string]any{"message": m.appendTo(nil, false)})
			e.counts.Completed++
			e.remove(m)
			continue
		}
		e.lock(m, now)
		list = append(list, map[string]any{"lock-token": m.token, "message": m.appendTo(nil, true)})
	}
	if len(list) == 0 {
		return reply{status: 204, description: "No content"}
	}
	return reply{status: 200, description: "OK", body: map[string]any{"messages": list}}
}

func (e *entity) scheduleMessages(r *request) reply {
	list, _ := r.arg("messages").([]any)
	var messages []*message
	for _, element := range list {
		entry, _ := element.(map[any]any)
		encoded, _ := entry["message"].([]byte)
		m, err := parseMessage(encoded)
		if err != nil {
			return refusal(asWireError(err))
		}
		messages = append(messages, m)
	}
	if refused := e.admit(messages); refused != nil {
		return refusal(refused)
	}
	numbers := make([]int64, len(messages))
	for i, m := range messages {
		e.schedule(m, m.scheduled())
		numbers[i] = m.sequence
	}
	return reply{status: 200, description: "OK", body: map[string]any{"sequence-numbers": numbers}}
}

func (e *entity) cancelScheduled(r *request) reply {
	var messages []*message
	for _, number := range r.numbers() {
		m := e.all[number]
		if m == nil || m.state != stateScheduled {
			return refusal(protocolError("com.microsoft:message-not-found", "The message with sequence number %d is not scheduled.", number))
		}
		messages = append(messages, m)
	}
	for _, m := range messages {
		e.scheduled--
		e.remove(m)
	}
	return reply{status: 200, description: "OK"}
}
