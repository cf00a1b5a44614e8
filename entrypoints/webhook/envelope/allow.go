package envelope

import (
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"
)

// kind is what a header of a message is to us.
type kind uint8

const (
	plain kind = iota
	mediaType
	coding
	traceparent
	tracestate
)

// verdict is what becomes of the message headers of one name.
type verdict struct {
	kind kind
	// key is the canonical name under which they go out, or empty.
	key string
	// dropped: they are asked for, and can't go out.
	dropped bool
	// attribute is what they are in a CloudEvent, as they are spelled by that binding.
	attribute attribute
}

// allowList decides which headers of messages become HTTP headers. It remembers names, which
// repeat from message to message, so that a name costs one look into a map.
type allowList struct {
	exact    []string // in canonical form
	prefixes []string // in lower case, without the '*'
	events   bool     // CloudEvents are made, and so recognised
	known    atomic.Pointer[map[string]verdict]
}

// maxKnown bounds what is remembered, because publishers choose the names.
const maxKnown = 256

func newAllowList(patterns []string, events bool) (*allowList, error) {
	a := &allowList{events: events}
	for _, p := range patterns {
		prefix, open := strings.CutSuffix(p, "*")
		switch {
		case open && (prefix == "" || httpguts.ValidHeaderFieldName(prefix)) && !strings.Contains(prefix, "*"):
			a.prefixes = append(a.prefixes, strings.ToLower(prefix))
		case open || !httpguts.ValidHeaderFieldName(p) || strings.Contains(p, "*"):
			return nil, fmt.Errorf("message header %.64q: a name is wanted, or the beginning of names and a * (like X-App-*)", p)
		default:
			key := textproto.CanonicalMIMEHeaderKey(p)
			if why := a.whyWithheld(key); why != "" {
				return nil, fmt.Errorf("message header %.64s can't go out: %s", p, why)
			}
			a.exact = append(a.exact, key)
		}
	}
	a.known.Store(&map[string]verdict{})
	return a, nil
}

// whyWithheld says why no header of a message can become this one.
func (a *allowList) whyWithheld(key string) string {
	switch {
	case slices.Contains(trustedHeaders, key) || strings.HasPrefix(key, "X-Forwarded-"):
		return "receivers take it for the word of their own proxy"
	case !a.events && strings.HasPrefix(key, eventPrefix):
		return "" // an event that is passed on as it is
	case kindOf(key) != plain:
		return "" // they go out in any case
	}
	return whyReserved(key)
}

// of decides about a name.
func (a *allowList) of(name string) verdict {
	known := a.known.Load()
	v, ok := (*known)[name]
	if ok {
		return v
	}
	v = a.decide(name)
	if len(*known) < maxKnown && len(name) <= 128 {
		// The text may lie in a large buffer of the broker's client, which shall not stay.
		more := maps.Clone(*known)
		more[strings.Clone(name)] = v
		a.known.CompareAndSwap(known, &more)
	}
	return v
}

func (a *allowList) decide(name string) (v verdict) {
	if a.events {
		v.attribute = attributeOf(name)
		if v.attribute.spelling == prefixed {
			v.dropped = a.asksFor(name) // unless the message is an event
			return v
		}
	}
	if !httpguts.ValidHeaderFieldName(name) {
		// What is no name of a header matches none, but may begin like one.
		v.dropped = a.asksFor(name)
		return v
	}
	key := textproto.CanonicalMIMEHeaderKey(name)
	v.kind = kindOf(key)
	switch {
	case v.kind != plain || !a.asksFor(name):
	case a.whyWithheld(key) != "":
		v.dropped = true
	default:
		v.key = strings.Clone(key)
	}
	return v
}

func kindOf(key string) kind {
	switch key {
	case typeHeader:
		return mediaType
	case encodingHeader:
		return coding
	case traceHeader:
		return traceparent
	case stateHeader:
		return tracestate
	}
	return plain
}

// asksFor reports whether a pattern matches the name.
func (a *allowList) asksFor(name string) bool {
	return slices.ContainsFunc(a.exact, func(key string) bool { return strings.EqualFold(key, name) }) || slices.ContainsFunc(a.prefixes, func(p string) bool {
		return len(name) >= len(p) && strings.EqualFold(name[:len(p)], p)
	})
}
