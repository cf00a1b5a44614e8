package message

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// marksOf makes n marks of a channel, sorted, with numbers of every width.
func marksOf(channel string, n int) []Mark {
	marks := make([]Mark, n)
	for i := range marks {
		marks[i] = Mark{Channel: channel, Partition: int32(i), Next: int64(1) << (i % 63), Time: 1_790_000_000_000 + int64(i)}
	}
	return marks
}

func equal(a, b Position) bool { return a.Origin == b.Origin && slices.Equal(a.Marks, b.Marks) }

func TestCursorRoundTrip(t *testing.T) {
	for name, p := range map[string]Position{
		"empty":          {},
		"origin alone":   {Origin: math.MaxUint64},
		"one":            {Origin: 1, Marks: []Mark{{Channel: "orders", Partition: 3, Next: 17, Time: 1_790_000_000_000}}},
		"zeros":          {Marks: []Mark{{}}},
		"extremes":       {Marks: []Mark{{Channel: "x", Partition: math.MaxInt32, Next: math.MaxInt64, Time: math.MaxInt64}}},
		"no name":        {Marks: []Mark{{Partition: 1, Next: 2}}},
		"two channels":   {Marks: append(marksOf("a", 3), marksOf("b", 2)...)},
		"binary name":    {Marks: marksOf("\x00\xff/ü", 1)},
		"longest name":   {Marks: marksOf(strings.Repeat("n", 1024), 1)},
		"256 partitions": {Origin: 7, Marks: marksOf(strings.Repeat("t", 249), MaxPartitions)},
	} {
		t.Run(name, func(t *testing.T) {
			cursor := p.Cursor()
			if strings.Trim(cursor, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
				t.Errorf("the cursor %q is not safe in a URL and a header", cursor)
			}
			if len(cursor) > MaxCursor {
				t.Errorf("%d bytes", len(cursor))
			}
			got, err := ParseCursor(cursor)
			if err != nil || !equal(got, p) {
				t.Fatalf("got %+v, %v", got, err)
			}
			if again := string(got.AppendCursor([]byte("before "))); again != "before "+cursor {
				t.Errorf("encoded again: %q", again)
			}
		})
	}
}

func TestCursorOf256PartitionsIsSmall(t *testing.T) {
	p := Position{Marks: marksOf(strings.Repeat("t", 249), MaxPartitions)}
	if n := len(p.Cursor()); n > 8<<10 {
		t.Errorf("%d bytes, and the documentation says less than 8 KiB", n)
	}
}

// raw makes a cursor of bytes, after version and origin.
func raw(parts ...any) string {
	b := binary.BigEndian.AppendUint64([]byte{cursorVersion}, 42)
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = binary.AppendUvarint(b, uint64(p))
		case uint64:
			b = binary.AppendUvarint(b, p)
		case string:
			b = append(binary.AppendUvarint(b, uint64(len(p))), p...)
		case []byte:
			b = append(b, p...)
		}
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// strayBits sets a bit of the last character that belongs to no byte.
func strayBits(cursor string) string {
	last := len(cursor) - 1
	return cursor[:last] + string(cursor[last]+1)
}

func TestParseCursorRefuses(t *testing.T) {
	good := raw("a", 2, 0, 5, 6, 1, 7, 8)
	if _, err := ParseCursor(good); err != nil {
		t.Fatalf("the cursor that the others are made from: %v", err)
	}
	many := []any{"a", MaxPartitions}
	for i := range MaxPartitions {
		many = append(many, i, 1, 1)
	}
	for name, cursor := range map[string]string{
		"nothing":             "",
		"not base64":          "!!!!",
		"standard alphabet":   strings.Repeat("+/", 8),
		"padding":             good + "=",
		"a line break":        good[:4] + "\n" + good[4:],
		"a line break behind": good + "\r\n",
		"stray bits":          strayBits(raw("ab", 1, 0, 5, 6)),
		"version 0":           base64.RawURLEncoding.EncodeToString(make([]byte, 9)),
		"version 2":           base64.RawURLEncoding.EncodeToString(append([]byte{2}, make([]byte, 8)...)),
		"no origin":           base64.RawURLEncoding.EncodeToString([]byte{cursorVersion, 0, 0, 0, 0, 0, 0, 0}),
		"name alone":          raw("a"),
		"name cut":            raw(5, []byte("abc")),
		"name too long":       raw(strings.Repeat("n", 1025), 1, 0, 0, 0),
		"no partitions":       raw("a", 0),
		"truncated":           raw("a", 2, 0, 5, 6, 1, 7),
		"truncated varint":    raw("a", 1, 0, 5, []byte{0x80}),
		"trailing":            raw("a", 1, 0, 5, 6, []byte{0}),
		"a byte too many":     raw("a", 1, 0, 5, 6, []byte{1}),
		"non-minimal":         raw("a", 1, 0, []byte{0x85, 0x00}, 6),
		"non-minimal zero":    raw("a", 1, []byte{0x80, 0x00}, 5, 6),
		"varint of 11 bytes":  raw("a", 1, 0, []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), 6),
		"partition over 31":   raw("a", 1, uint64(1)<<31, 5, 6),
		"offset over 63":      raw("a", 1, 0, uint64(1)<<63, 6),
		"time over 63":        raw("a", 1, 0, 5, uint64(1)<<63),
		"unsorted partitions": raw("a", 2, 1, 5, 6, 0, 7, 8),
		"same partition":      raw("a", 2, 0, 5, 6, 0, 7, 8),
		"unsorted channels":   raw("b", 1, 0, 5, 6, "a", 1, 0, 7, 8),
		"one channel in two":  raw("a", 1, 0, 5, 6, "a", 1, 1, 7, 8),
		"257 partitions":      raw("a", MaxPartitions+1, 0, 1, 1),
		"257 over channels":   raw(append(many, "b", 1, 0, 1, 1)...),
		"oversize":            strings.Repeat("A", MaxCursor+1),
	} {
		t.Run(name, func(t *testing.T) {
			p, err := ParseCursor(cursor)
			if !errors.Is(err, ErrCursor) {
				t.Errorf("got %+v, %v", p, err)
			}
			if p.Marks != nil || p.Origin != 0 {
				t.Errorf("a refused cursor left %+v", p)
			}
		})
	}
	if p, err := ParseCursor(raw(many...)); err != nil || len(p.Marks) != MaxPartitions {
		t.Errorf("the most partitions: %d, %v", len(p.Marks), err)
	}
}

// Whatever order the marks come in, the position is sorted and the farthest counts.
func TestAdvance(t *testing.T) {
	want := append(marksOf("a", 20), marksOf("b", 20)...)
	for range 50 {
		var p Position
		for _, i := range rand.Perm(3 * len(want)) {
			m := want[i%len(want)]
			if i >= len(want) { // an earlier place must not win
				m.Next, m.Time = m.Next-1, 1
			}
			p.Advance(m)
		}
		if !slices.Equal(p.Marks, want) {
			t.Fatalf("got %+v", p.Marks)
		}
	}
}

func TestSetGoesBack(t *testing.T) {
	var p Position
	p.Set(Mark{Channel: "b", Partition: 1, Next: 9, Time: 9})
	p.Set(Mark{Channel: "a", Partition: 1, Next: 9, Time: 9})
	p.Set(Mark{Channel: "b", Partition: 1, Next: 2, Time: 1})
	want := []Mark{{"a", 1, 9, 9}, {"b", 1, 2, 1}}
	if !slices.Equal(p.Marks, want) {
		t.Errorf("got %+v", p.Marks)
	}
}

func TestFind(t *testing.T) {
	p := Position{Marks: []Mark{{"a", 0, 1, 1}, {"a", 10, 2, 2}, {"a\x00", 0, 3, 3}, {"b", 2, 4, 4}}}
	for _, m := range p.Marks {
		if got, ok := p.Find(m.Channel, m.Partition); !ok || got != m {
			t.Errorf("%+v: %+v %v", m, got, ok)
		}
	}
	// What is absent is newer than the position: there is no mark, not a mark of 0.
	for _, m := range []Mark{{Channel: "a", Partition: 1}, {Channel: "b"}, {Channel: "c"}, {}} {
		if got, ok := p.Find(m.Channel, m.Partition); ok || got != (Mark{}) {
			t.Errorf("%+v: %+v %v", m, got, ok)
		}
	}
}

func TestClone(t *testing.T) {
	p := Position{Origin: 3, Marks: marksOf("a", 2)}
	c := p.Clone()
	c.Advance(Mark{Channel: "a", Partition: 0, Next: 1 << 40})
	c.Advance(Mark{Channel: "0", Partition: 0, Next: 1})
	if !equal(p, Position{Origin: 3, Marks: marksOf("a", 2)}) {
		t.Errorf("changing the copy changed %+v", p)
	}
}

func TestCovers(t *testing.T) {
	at := func(nexts ...int64) *Position {
		p := new(Position)
		for i, n := range nexts {
			if n >= 0 {
				p.Set(Mark{Channel: "a", Partition: int32(i), Next: n})
			}
		}
		return p
	}
	for name, tc := range map[string]struct {
		p, other *Position
		want     bool
	}{
		"nothing covers nothing":           {at(), at(), true},
		"all covers nothing":               {at(3, 4), at(), true},
		"itself":                           {at(3, 4), at(3, 4), true},
		"ahead":                            {at(5, 4), at(3, 4), true},
		"behind in one":                    {at(5, 3), at(3, 4), false},
		"a partition it has not seen":      {at(3), at(3, 1), false},
		"a partition of which nobody read": {at(3), at(3, 0), true},
		"only the other partition":         {at(-1, 4), at(3), false},
	} {
		if got := tc.p.Covers(tc.other); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// FuzzParseCursor: what clients send never panics, and there is only one way to write a
// position, so that a cursor can be compared as a string.
func FuzzParseCursor(f *testing.F) {
	for _, p := range []Position{{}, {Origin: 1, Marks: marksOf("orders", 3)}, {Marks: append(marksOf("a", 2), marksOf("b", 1)...)}} {
		f.Add(p.Cursor())
	}
	f.Add("")
	f.Add("!")
	f.Add(raw("a", 1, 0, 5, 6, "a", 1, 1, 7, 8))
	f.Add(raw("a", 1, 0, 5, 6) + "\n")
	f.Add(strayBits(raw("ab", 1, 0, 5, 6)))
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseCursor(s)
		if err != nil {
			if !errors.Is(err, ErrCursor) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if got := p.Cursor(); got != s {
			t.Errorf("%q is written again as %q", s, got)
		}
		if len(p.Marks) > MaxPartitions || !slices.IsSortedFunc(p.Marks, compareMarks) {
			t.Errorf("%q gave %+v", s, p)
		}
	})
}

func BenchmarkAppendCursor(b *testing.B) {
	for _, n := range []int{6, MaxPartitions} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := Position{Origin: 0x1234567890abcdef, Marks: marksOf("orders", n)}
			dst := make([]byte, 0, MaxCursor)
			b.ReportAllocs()
			for b.Loop() {
				dst = p.AppendCursor(dst[:0])
			}
			b.ReportMetric(float64(len(dst)), "bytes")
		})
	}
}

func BenchmarkParseCursor(b *testing.B) {
	for _, n := range []int{6, MaxPartitions} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := Position{Origin: 0x1234567890abcdef, Marks: marksOf("orders", n)}
			cursor := p.Cursor()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseCursor(cursor); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
