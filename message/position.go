package message

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxPartitions is how many partitions one position can hold.
const MaxPartitions = 256

// MaxCursor is the length in bytes over which a cursor is refused unread. 256
// partitions of one topic with a long name need less than 8 KiB.
const MaxCursor = 16 << 10

// Mark is a place in one partition: Next is the offset of the next message to read,
// Time the timestamp in Unix milliseconds of the message before it (0 when unknown), by
// which a channel that was made anew can be told from the old one.
type Mark struct {
	Channel   string
	Partition int32
	Next      int64
	Time      int64
}

// Position is a place in a channel's history: a mark per partition. A partition that
// is absent is newer than the position, and is read from its start.
//
// Marks are sorted by channel and partition. Origin is the fingerprint of the endpoint
// and channel that the position belongs to.
type Position struct {
	Origin uint64
	Marks  []Mark
}

// ErrCursor is wrapped by every error of ParseCursor.
var ErrCursor = errors.New("cursor is not one that this gateway made")

func compareMarks(a, b Mark) int {
	if c := strings.Compare(a.Channel, b.Channel); c != 0 {
		return c
	}
	return int(a.Partition) - int(b.Partition)
}

// Find returns the mark of a partition and whether the position has one.
func (p *Position) Find(channel string, partition int32) (Mark, bool) {
	i, ok := slices.BinarySearchFunc(p.Marks, Mark{Channel: channel, Partition: partition}, compareMarks)
	if !ok {
		return Mark{}, false
	}
	return p.Marks[i], true
}

// Advance moves the partition of m to m, if that is forward.
func (p *Position) Advance(m Mark) {
	i, ok := slices.BinarySearchFunc(p.Marks, m, compareMarks)
	switch {
	case !ok:
		p.Marks = slices.Insert(p.Marks, i, m)
	case m.Next > p.Marks[i].Next:
		p.Marks[i].Next, p.Marks[i].Time = m.Next, m.Time
	}
}

// Set moves the partition of m to m, also backwards: after a gap a channel may begin anew.
func (p *Position) Set(m Mark) {
	if i, ok := slices.BinarySearchFunc(p.Marks, m, compareMarks); ok {
		p.Marks[i] = m
	} else {
		p.Marks = slices.Insert(p.Marks, i, m)
	}
}

// Clone returns a copy that shares nothing.
func (p Position) Clone() Position {
	p.Marks = slices.Clone(p.Marks)
	return p
}

// Covers reports whether everything that other has read was read by p too: no
// partition of other is ahead of p.
func (p *Position) Covers(other *Position) bool {
	for _, m := range other.Marks {
		if m.Next == 0 {
			continue
		}
		if mine, ok := p.Find(m.Channel, m.Partition); !ok || mine.Next < m.Next {
			return false
		}
	}
	return true
}

const cursorVersion = 1

var cursorEncoding = base64.RawURLEncoding

// AppendCursor appends the printable form of p.
func (p *Position) AppendCursor(dst []byte) []byte {
	var stack [512]byte
	return cursorEncoding.AppendEncode(dst, p.appendBinary(stack[:0]))
}

// Cursor returns the printable form of p.
func (p *Position) Cursor() string { return string(p.AppendCursor(nil)) }

func (p *Position) appendBinary(dst []byte) []byte {
	dst = append(dst, cursorVersion)
	dst = binary.BigEndian.AppendUint64(dst, p.Origin)
	for i := 0; i < len(p.Marks); {
		channel := p.Marks[i].Channel
		j := i
		for j < len(p.Marks) && p.Marks[j].Channel == channel {
			j++
		}
		dst = binary.AppendUvarint(dst, uint64(len(channel)))
		dst = append(dst, channel...)
		dst = binary.AppendUvarint(dst, uint64(j-i))
		for ; i < j; i++ {
			dst = binary.AppendUvarint(dst, uint64(p.Marks[i].Partition))
			dst = binary.AppendUvarint(dst, uint64(p.Marks[i].Next))
			dst = binary.AppendUvarint(dst, uint64(p.Marks[i].Time))
		}
	}
	return dst
}

// ParseCursor reads what AppendCursor wrote. Anything else, of whatever size, is an
// error that wraps ErrCursor.
func ParseCursor(s string) (Position, error) {
	if len(s) > MaxCursor {
		return Position{}, fmt.Errorf("%w: %d bytes are more than %d", ErrCursor, len(s), MaxCursor)
	}
	raw, err := cursorEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") { // which the decoder passes over
		return Position{}, fmt.Errorf("%w: not base64url", ErrCursor)
	}
	if len(raw) < 9 || raw[0] != cursorVersion {
		return Position{}, fmt.Errorf("%w: unknown version", ErrCursor)
	}
	p := Position{Origin: binary.BigEndian.Uint64(raw[1:])}
	r := cursorReader{rest: raw[9:]}
	for len(r.rest) > 0 && !r.bad {
		p.Marks = r.channel(p.Marks)
	}
	if r.bad {
		return Position{}, fmt.Errorf("%w: damaged", ErrCursor)
	}
	return p, nil
}

// cursorReader takes a cursor apart; bad sticks, so that callers check once.
type cursorReader struct {
	rest []byte
	bad  bool
}

func (r *cursorReader) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > limit || (n > 1 && r.rest[n-1] == 0) {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *cursorReader) channel(marks []Mark) []Mark {
	const maxName, maxInt32, maxInt63 = 1024, 1<<31 - 1, 1<<63 - 1
	n := r.uvarint(maxName)
	if r.bad || uint64(len(r.rest)) < n {
		r.bad = true
		return marks
	}
	name := string(r.rest[:n])
	r.rest = r.rest[n:]
	count := r.uvarint(MaxPartitions)
	if count == 0 || len(marks)+int(count) > MaxPartitions || len(marks) > 0 && marks[len(marks)-1].Channel == name {
		r.bad = true
	}
	for range count {
		m := Mark{
			Channel:   name,
			Partition: int32(r.uvarint(maxInt32)),
			Next:      int64(r.uvarint(maxInt63)),
			Time:      int64(r.uvarint(maxInt63)),
		}
		if r.bad || len(marks) > 0 && compareMarks(marks[len(marks)-1], m) >= 0 {
			r.bad = true
			return marks
		}
		marks = append(marks, m)
	}
	return marks
}
