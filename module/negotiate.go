package module

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// way is an entrypoint with the endpoints that were negotiated for it.
type way struct {
	guest entrypoints.Serving // nil when it pushes
	push  entrypoints.Pushing // nil when it serves
	needs entrypoints.Needs
	log   *zap.Logger
	pub   *endpoint // nil when the entrypoint does not publish
	sub   *endpoint // nil when it does not subscribe
	// pubFallback and subFallback take over while the first is down.
	pubFallback, subFallback *endpoint
	// dead takes what can't be delivered; nil when nothing does.
	dead *endpoint
}

// negotiate finds the endpoints that can do what an entrypoint needs, or says why none can.
// anonymous tells that clients may come in without an identity.
func negotiate(guest entrypoints.Entrypoint, eps []*endpoint, anonymous bool) (*way, error) {
	w := &way{needs: guest.Needs()}
	w.guest, _ = guest.(entrypoints.Serving)
	if w.push, _ = guest.(entrypoints.Pushing); w.push != nil {
		anonymous = false // every subscription has its id
	}
	if (w.guest == nil) == (w.push == nil) {
		return nil, fmt.Errorf("entrypoint %s: module %T is neither entrypoints.Serving nor entrypoints.Pushing", w.needs.Type, guest)
	}
	if !slices.Contains(w.needs.Levels, w.needs.QoS) {
		return nil, fmt.Errorf("entrypoint %s has no qos %s: use %s", w.needs.Type, w.needs.QoS, levelList(w.needs.Levels))
	}
	var err error
	if w.needs.Publish {
		if w.pub, err = pick(&w.needs, eps, w.needs.Via, canPublish); err != nil {
			return nil, err
		}
	}
	reads := func(needs *entrypoints.Needs, caps *message.Capabilities) error {
		if w.push != nil && needs.QoS == message.Auto && caps.ManualSettle { // it is settled when the client has it, all the same
			if err := canHold(needs, caps); err != nil {
				return err
			}
		}
		return canSubscribe(needs, caps, anonymous)
	}
	if w.needs.Subscribe {
		if w.sub, err = pick(&w.needs, eps, w.needs.Via, reads); err != nil {
			return nil, err
		}
	}
	if w.needs.DeadLetter != "" {
		confirmed := func(needs *entrypoints.Needs, caps *message.Capabilities) error {
			return canPublish(&entrypoints.Needs{Type: needs.Type, QoS: message.AtLeastOnce}, caps)
		}
		if w.dead, err = pick(&w.needs, eps, w.needs.DeadLetter, confirmed); err != nil {
			return nil, fmt.Errorf("dead_letter: %w", err)
		}
		if w.dead == w.sub {
			return nil, fmt.Errorf("entrypoint %s: dead_letter %s is the endpoint that it reads from: what can't be delivered would come back", w.needs.Type, w.dead.name)
		}
	}
	return w, w.negotiateFallback(eps, reads)
}

func (w *way) negotiateFallback(eps []*endpoint, reads check) (err error) {
	if w.needs.Fallback == "" {
		return nil
	}
	if w.pub != nil {
		if w.pubFallback, err = pick(&w.needs, eps, w.needs.Fallback, canPublish); err != nil {
			return err
		}
	}
	if w.sub != nil {
		if w.subFallback, err = pick(&w.needs, eps, w.needs.Fallback, reads); err != nil {
			return err
		}
	}
	if w.pubFallback == w.pub && w.pub != nil || w.subFallback == w.sub && w.sub != nil {
		return fmt.Errorf("entrypoint %s: fallback %s is the endpoint that it would stand in for", w.needs.Type, w.needs.Fallback)
	}
	return nil
}

// check says why an endpoint can't do what is needed, or nil.
type check func(*entrypoints.Needs, *message.Capabilities) error

// pick returns the named endpoint, or the first that passes.
func pick(needs *entrypoints.Needs, eps []*endpoint, name string, can check) (*endpoint, error) {
	var why []error
	for _, e := range eps {
		if name != "" && e.name != name {
			continue
		}
		err := can(needs, &e.caps)
		if err == nil {
			return e, nil
		}
		why = append(why, fmt.Errorf("endpoint %s (%s) %w%s", e.name, e.kind, err, wouldWork(*needs, &e.caps, can)))
	}
	if len(why) == 0 {
		names := make([]string, len(eps))
		for i, e := range eps {
			names[i] = e.name
		}
		return nil, fmt.Errorf("entrypoint %s: this API has no endpoint %q: use %s", needs.Type, name, strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("entrypoint %s with qos %s can't be served: %w", needs.Type, needs.QoS, errors.Join(why...))
}

// wouldWork names the levels that the endpoint could do.
func wouldWork(needs entrypoints.Needs, caps *message.Capabilities, can check) string {
	var good []message.QoS
	for _, level := range needs.Levels {
		needs.QoS = level
		if can(&needs, caps) == nil {
			good = append(good, level)
		}
	}
	if len(good) == 0 {
		return ""
	}
	return "; with it, use qos " + levelList(good)
}

func levelList(levels []message.QoS) string {
	names := make([]string, len(levels))
	for i, l := range levels {
		names[i] = l.String()
	}
	return strings.Join(names, ", ")
}

func canPublish(needs *entrypoints.Needs, caps *message.Capabilities) error {
	switch {
	case !caps.Publish:
		return errors.New("has no producer")
	case needs.QoS != message.None && !caps.Confirm:
		return errors.New("can't tell when the broker has a message")
	}
	return nil
}

// canSubscribe is the table of docs/qos.md.
func canSubscribe(needs *entrypoints.Needs, caps *message.Capabilities, anonymous bool) error {
	if !caps.Subscribe {
		return errors.New("has no consumer")
	}
	if needs.From != "" && !caps.Positions {
		return errors.New("has no positions, so `from` can't be honoured")
	}
	held := caps.ManualSettle && (caps.Exclusive || caps.Shared)
	switch needs.QoS {
	case message.None:
		if !caps.Copy && !caps.Shared {
			return errors.New("can't give every process a copy of the channel; write `shared` if clients may compete for it")
		}
	case message.Auto:
		if caps.Copy || caps.Shared || caps.PerSession {
			return nil
		}
		if !caps.Exclusive {
			return errors.New("can give a client neither a copy of the channel nor a subscription of its own")
		}
		if anonymous {
			return errors.New("can't give anonymous clients of a keyless plan a copy of the channel; write `shared` if they may compete for it")
		}
	case message.AtMostOnce:
		if !held {
			return errors.New("has no settlement per client, which at_most_once needs")
		}
		if !caps.Fenced {
			return errors.New("can't prove that a message was settled before it is handed over")
		}
	case message.AtLeastOnce:
		if needs.Resume && caps.Positions {
			return nil
		}
		if needs.Acks && held {
			return canHold(needs, caps)
		}
		switch {
		case needs.Resume && needs.Acks:
			return errors.New("has neither positions nor a settlement per client, so a message can't be kept until the client has it")
		case needs.Resume:
			return errors.New("has no positions, so a client can't continue where it was")
		}
		return errors.New("has no settlement per client, so a message can't be held until the client has it")
	}
	return nil
}

// canHold compares how long a client may take with how long the endpoint lends.
func canHold(needs *entrypoints.Needs, caps *message.Capabilities) error {
	if caps.MaxHold == 0 || needs.Hold <= caps.MaxHold {
		return nil
	}
	howLong := needs.Hold.String()
	if needs.Hold == math.MaxInt64 {
		howLong = "any time"
	}
	return fmt.Errorf("lends a message for %s at most, and a client may take %s (%s): shorten that, or let it lend for longer",
		caps.MaxHold, howLong, needs.HoldFrom)
}

// mode says how a session subscribes. cursor tells that the client brought a position
// that counts.
func (w *way) mode(caps *message.Capabilities, anonymous, cursor bool) (message.Mode, error) {
	if cursor && caps.Positions {
		return message.Assigned, nil
	}
	tracked := func() (message.Mode, error) {
		switch {
		case caps.Shared:
			return message.Shared, nil
		case anonymous:
			return 0, message.Errorf(message.IdentityRequired,
				"qos %s needs to know who is asking: send the client identifier header, or use a plan that identifies clients", w.needs.QoS)
		}
		return message.Member, nil
	}
	switch w.needs.QoS {
	case message.None:
		if caps.Copy {
			return message.Broadcast, nil
		}
		return message.Shared, nil
	case message.Auto:
		switch {
		case caps.Shared:
			return message.Shared, nil
		case caps.PerSession:
			return message.Assigned, nil
		case !anonymous && caps.Exclusive:
			return message.Member, nil
		case caps.Copy:
			return message.Broadcast, nil
		}
		return tracked()
	case message.AtLeastOnce:
		if w.needs.Resume && caps.Positions {
			return message.Assigned, nil
		}
	}
	return tracked()
}
