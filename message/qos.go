package message

import (
	"fmt"
	"time"
)

// QoS is a level of delivery guarantee. What each one means at which entrypoint is
// told in docs/qos.md.
type QoS uint8

// The levels. Auto is the default everywhere.
const (
	Auto QoS = iota
	None
	AtMostOnce
	AtLeastOnce
)

// Levels are all levels, in the order in which they are documented.
var Levels = [...]QoS{None, Auto, AtMostOnce, AtLeastOnce}

var qosNames = [...]string{Auto: "auto", None: "none", AtMostOnce: "at_most_once", AtLeastOnce: "at_least_once"}

func (q QoS) String() string { return qosNames[q] }

// ParseQoS reads a level as it is written in configuration; "" is Auto.
func ParseQoS(s string) (QoS, error) {
	if s == "" {
		return Auto, nil
	}
	for q, name := range qosNames {
		if name == s {
			return QoS(q), nil
		}
	}
	return Auto, fmt.Errorf("unknown qos %q: use none, auto, at_most_once or at_least_once", s)
}

// MarshalText writes the level as in configuration.
func (q QoS) MarshalText() ([]byte, error) { return []byte(q.String()), nil }

// UnmarshalText reads the level as in configuration.
func (q *QoS) UnmarshalText(b []byte) (err error) {
	*q, err = ParseQoS(string(b))
	return err
}

// Start is where reading begins when no position says it. The zero value leaves it to
// the endpoint's configuration.
type Start struct {
	Kind StartKind
	Time time.Time // for StartTime
}

// StartKind tells the kinds of Start apart.
type StartKind uint8

// The places to begin.
const (
	StartDefault StartKind = iota
	StartLatest
	StartEarliest
	StartTime
)

// ParseStart reads latest, earliest or an RFC 3339 time; "" is the default.
func ParseStart(s string) (Start, error) {
	switch s {
	case "":
		return Start{}, nil
	case "latest":
		return Start{Kind: StartLatest}, nil
	case "earliest":
		return Start{Kind: StartEarliest}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return Start{}, fmt.Errorf("start %q is neither latest, earliest nor an RFC 3339 time", s)
	}
	return Start{Kind: StartTime, Time: t}, nil
}
