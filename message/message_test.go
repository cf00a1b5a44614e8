package message

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestQoSText(t *testing.T) {
	for _, q := range Levels {
		text, err := q.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back QoS
		if err := back.UnmarshalText(text); err != nil || back != q {
			t.Errorf("%s came back as %s, %v", q, back, err)
		}
	}
	if q, err := ParseQoS(""); q != Auto || err != nil {
		t.Errorf("nothing: %s, %v", q, err)
	}
	for _, bad := range []string{"AUTO", "exactly_once", "at-least-once", " none", "0"} {
		_, err := ParseQoS(bad)
		if err == nil || !strings.Contains(err.Error(), bad) || !strings.Contains(err.Error(), "at_least_once") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	var config struct {
		QoS QoS `json:"qos,omitzero"`
	}
	if raw, err := json.Marshal(config); err != nil || string(raw) != "{}" {
		t.Errorf("the default is written as %s, %v", raw, err)
	}
	if err := json.Unmarshal([]byte(`{"qos":"at_most_once"}`), &config); err != nil || config.QoS != AtMostOnce {
		t.Errorf("%s, %v", config.QoS, err)
	}
}

func TestParseStart(t *testing.T) {
	at := time.Date(2026, 11, 21, 5, 6, 7, 800_000_000, time.UTC)
	for text, want := range map[string]Start{
		"": {}, "latest": {Kind: StartLatest}, "earliest": {Kind: StartEarliest},
		"2026-11-21T05:06:07.8Z":      {Kind: StartTime, Time: at},
		"2026-11-21T06:06:07.8+01:00": {Kind: StartTime, Time: at},
	} {
		got, err := ParseStart(text)
		if err != nil || got.Kind != want.Kind || !got.Time.Equal(want.Time) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"Latest", "now", "2026-11-21", "2026-11-21T05:06:07", "1790000000", "2026-02-30T00:00:00Z"} {
		if got, err := ParseStart(bad); err == nil || got != (Start{}) {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}

func TestErrorWrapping(t *testing.T) {
	plain := Errorf(BadInput, "limit %d", 0)
	if plain.Error() != "limit 0" || plain.Unwrap() != nil || KindOf(plain) != BadInput {
		t.Errorf("%+v", plain)
	}
	one := Errorf(Unavailable, "dialing %s: %w", "broker:1", io.ErrUnexpectedEOF)
	if one.Detail != "dialing broker:1: unexpected EOF" || !errors.Is(one, io.ErrUnexpectedEOF) {
		t.Errorf("%+v", one)
	}
	two := Errorf(OutcomeUnknown, "%w, and then %w", io.EOF, fs.ErrClosed)
	if !errors.Is(two, io.EOF) || !errors.Is(two, fs.ErrClosed) || KindOf(two) != OutcomeUnknown {
		t.Errorf("of two causes %v keeps %v", two, two.Unwrap())
	}
}

func TestKindOf(t *testing.T) {
	inner := Errorf(NotFound, "no topic")
	for name, tc := range map[string]struct {
		err  error
		want Kind
	}{
		"nothing":           {nil, Internal},
		"unclassified":      {io.EOF, Internal},
		"itself":            {inner, NotFound},
		"wrapped":           {fmt.Errorf("subscribing: %w", inner), NotFound},
		"joined":            {errors.Join(io.EOF, inner), NotFound},
		"the outer counts":  {Errorf(Busy, "too much: %w", inner), Busy},
		"the first counts":  {errors.Join(Errorf(Denied, "no"), inner), Denied},
		"behind two causes": {fmt.Errorf("%w; the fallback failed too: %w", io.EOF, inner), NotFound},
	} {
		if got := KindOf(tc.err); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
	names := make(map[string]bool)
	for k := Internal; k <= Mismatch; k++ {
		names[k.String()] = true
	}
	if len(names) != len(kindNames) || names[""] {
		t.Errorf("the kinds' names are %v", names)
	}
}

func TestStatusWords(t *testing.T) {
	for status, want := range map[Status]string{Unknown: "unknown", Stored: "stored", Handed: "handed", Refused: "refused"} {
		if status.String() != want || status.OK() != (status == Stored || status == Handed) {
			t.Errorf("%d: %s %v", status, status, status.OK())
		}
	}
	var silence Result
	if silence.Status != Unknown || silence.Status.OK() {
		t.Error("silence is taken for an outcome")
	}
	modes := []string{Broadcast.String(), Assigned.String(), Member.String(), Shared.String()}
	if !slices.Equal(modes, []string{"broadcast", "assigned", "member", "shared"}) {
		t.Errorf("modes %v", modes)
	}
}

// Every byte that a client can choose counts, so that windows and logs are bounded.
func TestMessageSize(t *testing.T) {
	empty := new(Message).Size()
	m := &Message{
		ID: "12345", Key: []byte("key"), Payload: make([]byte, 1000),
		Headers: []Header{{"name", "value"}, {"n", ""}}, Metadata: []Field{Text("topic", "orders")},
	}
	if got, least := m.Size()-empty, 5+3+1000+4+5+1+len("orders"); got < least {
		t.Errorf("%d bytes are counted of at least %d", got, least)
	}
	if many := (&Message{Metadata: make([]Field, 1000)}); many.Size() < empty+1000 {
		t.Errorf("a thousand empty fields count as %d bytes", many.Size()-empty)
	}
}

func TestMessageLookups(t *testing.T) {
	m := &Message{
		Headers:  []Header{{"a", "1"}, {"A", "2"}, {"a", "3"}, {"empty", ""}},
		Metadata: []Field{Text("t", "x"), Number("n", -5), Flag("f", true)},
	}
	for name, want := range map[string]string{"a": "1", "A": "2", "empty": ""} {
		if got, ok := m.Header(name); !ok || got != want {
			t.Errorf("header %s: %q %v", name, got, ok)
		}
	}
	if _, ok := m.Header("b"); ok {
		t.Error("a header that is not there")
	}
	for name, want := range map[string]any{"t": "x", "n": int64(-5), "f": true} {
		f, ok := m.Field(name)
		if !ok || f.Value() != want || f.String() != fmt.Sprint(want) {
			t.Errorf("field %s: %v %q %v", name, f.Value(), f, ok)
		}
	}
	if f, ok := m.Field("x"); ok || f != (Field{}) {
		t.Errorf("a field that is not there: %+v", f)
	}
}
