package feed

import (
	"sync"
	"sync/atomic"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// maxFormats is how many wire forms one log encodes once for all. Sessions beyond that
// encode for themselves.
const maxFormats = 8

// chunk is a link of the log. A session holds the chunk that it read last; what comes
// after it is found by next. Dropping a chunk empties its body and cuts the link before
// it, so that a session that stopped keeps nothing alive but its own chunk.
type chunk struct {
	next atomic.Pointer[chunk]
	body atomic.Pointer[body] // nil once the chunk was dropped
	end  *message.Position    // after the chunk; nil without positions
	size int                  // guarded by Log.mu
}

// lost stands where a chain was cut: following it means to have fallen out of the log.
var lost = new(chunk)

// body is what a chunk carries.
type body struct {
	gap        *message.Gap
	deliveries []message.Delivery
	start      *message.Position
	wires      [maxFormats]wire
}

// wire is a chunk in one wire form. ends[i] is where message i ends.
type wire struct {
	once sync.Once
	buf  []byte
	ends []uint32
}

// encode fills the wire form for slot, once, and returns how many bytes this call added.
func (b *body) encode(slot int, enc entrypoints.Encoder) (w *wire, added int) {
	w = &b.wires[slot]
	w.once.Do(func() {
		raw := 0
		for i := range b.deliveries {
			raw += len(b.deliveries[i].Payload) + 64
		}
		w.buf = make([]byte, 0, raw)
		w.ends = make([]uint32, len(b.deliveries))
		track := newTracker(b.start, b.gap != nil, enc)
		for i := range b.deliveries {
			w.buf = enc.Append(w.buf, &b.deliveries[i], track.after(&b.deliveries[i]))
			w.ends[i] = uint32(len(w.buf))
		}
		added = cap(w.buf) + 4*len(w.ends)
	})
	return w, added
}

// piece returns the bytes of messages [from,to).
func (w *wire) piece(from, to int) []byte {
	start := uint32(0)
	if from > 0 {
		start = w.ends[from-1]
	}
	return w.buf[start:w.ends[to-1]]
}

// tracker follows the position message by message, and prints it where the encoder
// wants it.
type tracker struct {
	pos    message.Position
	on     bool
	print  bool
	anew   bool // after a gap, partitions may have gone back
	cursor []byte
}

func newTracker(start *message.Position, anew bool, enc entrypoints.Encoder) tracker {
	if start == nil {
		return tracker{}
	}
	return tracker{pos: start.Clone(), on: true, anew: anew, print: enc.WantsCursor()}
}

// after moves to behind d and returns the printed position, valid until the next call.
func (t *tracker) after(d *message.Delivery) []byte {
	if !t.on {
		return nil
	}
	move(&t.pos, d.Mark, t.anew)
	if !t.print {
		return nil
	}
	t.cursor = t.pos.AppendCursor(t.cursor[:0])
	return t.cursor
}

func move(pos *message.Position, m message.Mark, anew bool) {
	if anew {
		pos.Set(m)
	} else {
		pos.Advance(m)
	}
}
