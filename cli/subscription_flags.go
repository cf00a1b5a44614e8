package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

// keyFlags are for what can make a key.
type keyFlags struct {
	file  string
	quiet bool
}

func (k *keyFlags) flags(flags *pflag.FlagSet) {
	flags.StringVar(&k.file, "key-file", "", "File that holds a key of your own, where custom keys are allowed")
	flags.BoolVarP(&k.quiet, "quiet", "q", false, "Print the new key alone")
}

func (k *keyFlags) key() (string, error) { return secret("key", "", k.file) }

// span is from when to when.
type span struct{ starts, ends string }

func (s *span) flags(flags *pflag.FlagSet) {
	flags.StringVar(&s.starts, "starts", "", "When it begins: a time, a day, or how long from now")
	flags.StringVar(&s.ends, "ends", "", "When it ends: a time, a day, or how long from now")
}

func (s *span) times(t *tool) (starts, ends time.Time, err error) {
	if starts, err = t.timeFlag("starts", s.starts); err != nil {
		return starts, ends, err
	}
	ends, err = t.timeFlag("ends", s.ends)
	return starts, ends, err
}

func (t *tool) optionalTime(flag, text string) (admin.Optional[time.Time], error) {
	switch text {
	case "":
		return admin.Optional[time.Time]{}, nil
	case none:
		return admin.Null[time.Time](), nil
	}
	at, err := t.parseTime("--"+flag, text)
	return admin.Some(at), err
}

// patchMetadata changes metadata; the zero value if there is nothing to change.
func patchMetadata(now map[string]string, changes []string) (p admin.Optional[map[string]string], err error) {
	if len(changes) == 0 {
		return p, nil
	}
	merged := make(map[string]string)
	maps.Copy(merged, now)
	return admin.Some(merged), applyMetadata(merged, changes)
}

// applyMetadata changes metadata as name=value says; an empty value takes it away.
func applyMetadata(metadata map[string]string, changes []string) error {
	for _, change := range changes {
		name, value, ok := strings.Cut(change, "=")
		switch {
		case !ok || name == "":
			return fmt.Errorf("--metadata %q: write name=value", change)
		case value == "":
			delete(metadata, name)
		default:
			metadata[name] = value
		}
	}
	return nil
}

// limitFlags are the limits of a subscription, which stand in the place of its plan's.
type limitFlags struct{ values map[string]*string }

var limitUsage = []struct{ name, usage string }{
	{"rate-limit", "Requests, and how many at once, like 10/1s"},
	{"quota", "Requests over a long time, like '1000/1d' or '1000/1mo calendar'"},
	{"max-sessions", "Sessions at a time"},
	{"publish-rate", "Messages that may be published, like 100/1s"},
	{"receive-rate", "Messages that are delivered, like 100/1s"},
}

func (l *limitFlags) flags(flags *pflag.FlagSet) {
	l.values = make(map[string]*string)
	for _, u := range limitUsage {
		l.values[u.name] = flags.String(u.name, "", u.usage)
	}
}

func (l *limitFlags) given(flags *pflag.FlagSet) bool {
	return slices.ContainsFunc(limitUsage, func(u struct{ name, usage string }) bool { return flags.Changed(u.name) })
}

// patch changes limits by those that are given; the zero value if there are none.
func (l *limitFlags) patch(flags *pflag.FlagSet, now *admin.Limits) (p admin.Optional[*admin.Limits], err error) {
	if !l.given(flags) {
		return p, nil
	}
	merged := new(admin.Limits)
	if now != nil {
		*merged = *now
	}
	if err := l.apply(flags, merged); err != nil {
		return p, err
	}
	if *merged == (admin.Limits{}) {
		return admin.Null[*admin.Limits](), nil
	}
	return admin.Some(merged), nil
}

// apply sets the limits that are given.
func (l *limitFlags) apply(flags *pflag.FlagSet, limits *admin.Limits) error {
	for name, place := range map[string]*string{
		"rate-limit": &limits.RateLimit, "quota": &limits.Quota,
		"publish-rate": &limits.PublishRate, "receive-rate": &limits.ReceiveRate,
	} {
		if !flags.Changed(name) {
			continue
		}
		if *place = *l.values[name]; *place == none {
			*place = ""
		}
	}
	if flags.Changed("max-sessions") {
		text := *l.values["max-sessions"]
		if text == none {
			text = "0"
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return fmt.Errorf("--max-sessions %q: write a number, or %s", text, none)
		}
		limits.MaxSessions = n
	}
	return nil
}

func limitsText(l *admin.Limits) string {
	if l == nil {
		return ""
	}
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	add("rate_limit", l.RateLimit)
	add("quota", l.Quota)
	if l.MaxSessions > 0 {
		add("max_sessions", strconv.Itoa(l.MaxSessions))
	}
	add("publish_rate", l.PublishRate)
	add("receive_rate", l.ReceiveRate)
	return strings.Join(parts, ", ")
}
