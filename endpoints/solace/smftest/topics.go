package smftest

import "strings"

// topics finds what is subscribed to a topic, level by level. A level that ends in "*"
// matches by what stands before it, and ">" as the last level matches one or more.
type topics struct {
	root level
}

type level struct {
	exact  map[string]*level
	prefix map[string]*level // without the star
	rest   []target          // of the filter that ends here with ">"
	here   []target
}

// target is what a subscription leads to.
type target interface {
	// fresh says whether it is the first time that the target is asked with this number:
	// one that several subscriptions lead to gets a message once.
	fresh(number uint64) bool
}

// once is the part of a target that knows.
type once struct{ last uint64 }

func (o *once) fresh(number uint64) bool {
	was := o.last
	o.last = number
	return was != number
}

// add adds a subscription, if it is not there yet.
func (t *topics) add(filter string, to target) { *t.list(filter) = with(*t.list(filter), to) }

// remove removes a subscription.
func (t *topics) remove(filter string, to target) { *t.list(filter) = without(*t.list(filter), to) }

// list is where the subscriptions to a filter stand. Levels are made as needed, and stay.
func (t *topics) list(filter string) *[]target {
	at := &t.root
	for more := true; more; {
		var name string
		name, filter, more = strings.Cut(filter, "/")
		if name == ">" && !more {
			return &at.rest
		}
		if prefix, isPrefix := strings.CutSuffix(name, "*"); isPrefix {
			at = child(&at.prefix, prefix)
		} else {
			at = child(&at.exact, name)
		}
	}
	return &at.here
}

func child(of *map[string]*level, name string) *level {
	if *of == nil {
		*of = make(map[string]*level)
	}
	if (*of)[name] == nil {
		(*of)[name] = new(level)
	}
	return (*of)[name]
}

// match appends what is subscribed to a topic, once for each subscription.
func (t *topics) match(to []target, topic string) []target { return t.root.match(to, topic) }

func (l *level) match(to []target, topic string) []target {
	to = append(to, l.rest...)
	name, rest, more := strings.Cut(topic, "/")
	follow := func(next *level) {
		if more {
			to = next.match(to, rest)
		} else {
			to = append(to, next.here...)
		}
	}
	if next := l.exact[name]; next != nil {
		follow(next)
	}
	for prefix, next := range l.prefix {
		if strings.HasPrefix(name, prefix) {
			follow(next)
		}
	}
	return to
}

func with(all []target, one target) []target {
	for _, t := range all {
		if t == one {
			return all
		}
	}
	return append(all, one)
}

func without(all []target, one target) []target {
	for i, t := range all {
		if t == one {
			return append(all[:i], all[i+1:]...)
		}
	}
	return all
}
