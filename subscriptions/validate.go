package subscriptions

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

// Bounds of what a record holds, in bytes.
const (
	maxID           = 64
	maxName         = 128
	maxText         = 4096
	maxReason       = 1024
	maxClientID     = 256
	maxMetadata     = 32
	maxMetadataName = 64
	maxMetadataText = 1024
	maxConsumer     = 16 << 10
	// maxLiveKeys is how many keys of a subscription can be good at a time.
	maxLiveKeys = 20
)

// checks gather all that is wrong with a request.
type checks []Problem

func (c *checks) add(path, format string, args ...any) {
	*c = append(*c, Problem{Path: path, Detail: fmt.Sprintf(format, args...)})
}

// err is nil, or an Invalid with all problems.
func (c *checks) err(what string) error {
	if len(*c) == 0 {
		return nil
	}
	return &Error{Kind: Invalid, Detail: what + " cannot be taken", Problems: *c}
}

// line checks text that is shown in lists and logs: bounded, and in one line.
func (c *checks) line(path, text string, most int) {
	c.text(path, text, most)
	if strings.ContainsFunc(text, unicode.IsControl) {
		c.add(path, "it contains control characters")
	}
}

// text checks text of several lines.
func (c *checks) text(path, text string, most int) {
	switch {
	case len(text) > most:
		c.add(path, "it has %d bytes; at most %d", len(text), most)
	case !utf8.ValidString(text):
		c.add(path, "it is not valid UTF-8")
	}
}

func (c *checks) required(path, text string) {
	if text == "" {
		c.add(path, "it is missing")
	}
}

func (c *checks) id(path, text string) {
	if len(text) > maxID || !allOf(text, idChar) {
		c.add(path, "use 1 to %d of a-z, 0-9, '.', '_' and '-'", maxID)
	}
}

func idChar(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}

func (c *checks) clientID(path, text string) {
	if len(text) > maxClientID || !allOf(text, func(b byte) bool { return b > ' ' && b < 0x7f }) {
		c.add(path, "use at most %d visible ASCII characters", maxClientID)
	}
}

func (c *checks) dates(starts, ends, now time.Time) {
	for _, d := range []struct {
		path string
		at   time.Time
	}{{"starts", starts}, {"ends", ends}} {
		if y := d.at.Year(); !d.at.IsZero() && (y < 1970 || y > 9999) {
			c.add(d.path, "the year %d is none of 1970 to 9999", y)
		}
	}
	switch {
	case ends.IsZero():
	case !starts.IsZero() && !starts.Before(ends):
		c.add("ends", "it must be after starts")
	case !now.Before(ends):
		c.add("ends", "it is in the past; to end a subscription now, close it")
	}
}

func (c *checks) limits(limits *plans.Limits) {
	if limits == nil {
		return
	}
	if err := limits.Validate(); err != nil {
		c.add("limits", "%v", err)
	}
}

func (c *checks) metadata(metadata map[string]string) {
	if len(metadata) > maxMetadata {
		c.add("metadata", "it has %d entries; at most %d", len(metadata), maxMetadata)
		return
	}
	for name, text := range metadata {
		path := "metadata." + clip(name)
		if name == "" || len(name) > maxMetadataName || !allOf(name, keyChar) {
			c.add(path, "a name is 1 to %d of A-Z, a-z, 0-9, '.', '_', '~' and '-'", maxMetadataName)
		}
		c.text(path, text, maxMetadataText)
	}
}

// custom checks a key that somebody thought out. It never quotes it.
func (c *checks) custom(key string, allowed bool) {
	switch {
	case key == "":
	case !allowed:
		c.add("key", "keys of one's own are not allowed here; leave it out, and a key is made")
	default:
		if problem := customProblem(key); problem != "" {
			c.add("key", "%s", problem)
		}
	}
}

// utc is a time as it is stored.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Round(0)
}
