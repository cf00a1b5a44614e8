package kafka

import (
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// fingerprint tells positions of one cluster and channel from all others.
func fingerprint(cluster string, s *spec) uint64 {
	h := fnv.New64a()
	for _, part := range []string{"kafka", cluster, s.key()} {
		fmt.Fprintf(h, "%d:%s,", len(part), part)
	}
	return h.Sum64()
}

// finding is what became of a position: where to go on, and the reason of the gap if
// that is somewhere else.
type finding struct {
	next   int64
	reason message.GapReason
}

const (
	// firstProbe is how many bytes per partition the check of a position asks for at
	// first: enough for small batches.
	firstProbe = 8 << 10
	mostProbe  = 8 << 20
)

// verify checks positions against the log: whether what comes next is still there, and,
// by the timestamp of the message before, whether it is the log that they were made for.
func (c *client) verify(ctx context.Context, topics []*topicInfo, marks []message.Mark) (map[partition]finding, error) {
	found := make(map[partition]finding, len(marks))
	byPlace := make(map[partition]message.Mark, len(marks))
	places := make([]partition, len(marks))
	for i, m := range marks {
		places[i] = partition{m.Channel, m.Partition}
		byPlace[places[i]] = m
	}
	err := c.eachLeader(topics, places, func(broker int32, led []partition) error {
		v := verification{c: c, broker: broker, found: found, bytes: firstProbe}
		for _, p := range led {
			v.open = append(v.open, &probe{mark: byPlace[p], at: p, before: byPlace[p].Time != 0 && byPlace[p].Next > 0})
		}
		return v.run(ctx)
	})
	return found, err
}

// verification checks the positions in one broker's partitions.
type verification struct {
	c      *client
	broker int32
	open   []*probe
	out    []*probe // the broker does not have their offset
	found  map[partition]finding
	bytes  int
}

// probe is one position under examination.
type probe struct {
	mark message.Mark
	at   partition
	// before: the message before the position is looked at, not the position itself.
	before bool
}

func (p *probe) offset() int64 {
	if p.before {
		return p.mark.Next - 1
	}
	return p.mark.Next
}

func (v *verification) run(ctx context.Context) error {
	for len(v.open) > 0 {
		if err := v.c.settled(ctx, func() error { return v.round(ctx) }); err != nil {
			return err
		}
	}
	return v.settleLost(ctx)
}

// round asks about everything that is open. Each round settles something, or asks the
// next one for more bytes.
func (v *verification) round(ctx context.Context) error {
	want := make([]wanted, len(v.open))
	open := make(map[partition]*probe, len(v.open))
	for i, p := range v.open {
		want[i] = wanted{p.at, p.offset()}
		open[p.at] = p
	}
	total := max(min(v.bytes*len(want), mostProbe), v.bytes)
	got, err := v.c.fetch(ctx, v.broker, want, total, v.bytes, 0)
	if err != nil {
		return v.c.unavailable(err)
	}
	var rest []*probe
	need := v.bytes
	for i := range got {
		p := open[got[i].partition]
		if p == nil {
			continue
		}
		delete(open, p.at)
		switch code := got[i].code; {
		case code == kafkago.OffsetOutOfRange:
			v.out = append(v.out, p)
		case code != 0:
			v.open = append(rest, remaining(v.open, rest, v.found, v.out)...)
			return brokerError("topic "+p.at.topic, code)
		default:
			more, err := v.examine(p, &got[i])
			if err != nil {
				return err
			}
			if more > 0 {
				rest = append(rest, p)
				need = max(need, more)
			}
		}
	}
	if len(rest) == len(v.open) && need == v.bytes {
		need *= 2
	}
	for _, p := range open { // the broker left them out
		rest = append(rest, p)
	}
	v.open, v.bytes = rest, min(need, maxFrame)
	return nil
}

// remaining are the probes that nothing was decided about.
func remaining(all, but []*probe, found map[partition]finding, out []*probe) []*probe {
	skip := make(map[*probe]bool)
	for _, p := range append(but, out...) {
		skip[p] = true
	}
	var left []*probe
	for _, p := range all {
		if _, ok := found[p.at]; !ok && !skip[p] {
			left = append(left, p)
		}
	}
	return left
}

// examine decides about a position whose offset is in the log. If it can't yet, it says
// how many bytes it needs to.
func (v *verification) examine(p *probe, f *fetched) (more int, err error) {
	keep := finding{next: p.mark.Next}
	if !p.before {
		v.found[p.at] = keep
		return 0, nil
	}
	e, _, ok, err := nextEntry(f.data)
	switch {
	case err != nil:
		return 0, message.Errorf(message.Internal, "checking a position in topic %s: %w", p.at.topic, err)
	case !ok && f.end < p.mark.Next && len(f.data) == 0:
		// Nobody has read so far, or the broker does not know yet how far it may be read:
		// only the position itself can tell.
		p.before = false
		return 1, nil
	case !ok:
		return max(v.bytes, 2*len(f.data)), nil
	}
	at, found, err := e.timeOf(p.mark.Next - 1)
	if err != nil {
		return 0, message.Errorf(message.Internal, "checking a position in topic %s: %w", p.at.topic, err)
	}
	if found && at != p.mark.Time {
		p.before = false
		v.out = append(v.out, p) // it is another log: where does it begin?
		p.mark.Time = -1
		return 0, nil
	}
	v.found[p.at] = keep
	return 0, nil
}

// timeOf returns the timestamp of a record. Compaction may have taken it.
func (e *entry) timeOf(offset int64) (at int64, found bool, err error) {
	c, err := e.open()
	if err != nil {
		return 0, false, err
	}
	for {
		var r record
		ok, err := c.next(&r)
		if !ok || err != nil || r.offset > offset {
			return 0, false, err
		}
		if r.offset == offset {
			return max(r.time, 0), true, nil
		}
	}
}

// settleLost decides about positions that the log does not have.
func (v *verification) settleLost(ctx context.Context) error {
	if len(v.out) == 0 {
		return nil
	}
	places := make([]partition, len(v.out))
	for i, p := range v.out {
		places[i] = p.at
	}
	return v.c.settled(ctx, func() error {
		starts, failed, err := v.c.offsetsAt(ctx, v.broker, places, earliest)
		if err != nil {
			return v.c.unavailable(err)
		}
		for p, code := range failed {
			return brokerError("topic "+p.topic, code)
		}
		for _, p := range v.out {
			start := starts[p.at]
			switch {
			case p.mark.Time < 0:
				v.found[p.at] = finding{start, message.GapRecreated}
			case p.mark.Next == start:
				v.found[p.at] = finding{next: start} // what came before it was deleted, and nothing else
			case p.mark.Next < start:
				v.found[p.at] = finding{start, message.GapExpired}
			default:
				v.found[p.at] = finding{start, message.GapRecreated}
			}
		}
		return nil
	})
}

// A bookmark's note holds the timestamp that a Mark has and an offset has not.
const notePrefix = "t="

func noteOf(m message.Mark) string { return notePrefix + strconv.FormatInt(m.Time, 10) }

func timeOfNote(note string) int64 {
	text, ok := strings.CutPrefix(note, notePrefix)
	if !ok {
		return 0
	}
	at, err := strconv.ParseInt(text, 10, 64)
	if err != nil || at < 0 {
		return 0 // somebody else's note; a bookmark without a timestamp is still one
	}
	return at
}
