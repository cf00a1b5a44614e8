package smftest

import "testing"

type named struct {
	once
	name string
}

func TestTopics(t *testing.T) {
	for filter, cases := range map[string]map[string]bool{
		"a/b":   {"a/b": true, "a": false, "a/b/c": false, "a/bb": false},
		"a/*":   {"a/b": true, "a/": true, "a/b/c": false, "a": false},
		"a/b*":  {"a/b": true, "a/bcd": true, "a/c": false},
		"*/b":   {"a/b": true, "/b": true, "a/c": false},
		"a/>":   {"a/b": true, "a/b/c": true, "a": false, "b/a": false},
		">":     {"a": true, "a/b": true},
		"a/>/b": {"a/>/b": true, "a/x/b": false},
		"a*b/c": {"a*b/c": true, "axb/c": false},
	} {
		var all topics
		to := &named{name: filter}
		all.add(filter, to)
		for topic, want := range cases {
			if got := len(all.match(nil, topic)) == 1; got != want {
				t.Errorf("%q matches %q: %v", filter, topic, got)
			}
		}
		all.remove(filter, to)
		for topic := range cases {
			if len(all.match(nil, topic)) != 0 {
				t.Errorf("%q matches %q after it was removed", filter, topic)
			}
		}
	}
}
