package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/protocol"
)

// The layout of what a fetch returns: entries that all begin with an offset (8 bytes), a
// length (4), something (4) and a magic byte. Magic 2 is a record batch of today, 0 and 1
// are message sets from before Kafka 0.11 that old topics may still hold.
const (
	entryHead   = 12 // offset and length, which the length does not count
	magicAt     = 16
	batchHead   = 61 // everything before the first record of a batch
	maxInflated = 64 << 20
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errCorrupt = errors.New("the data is damaged")
)

// entry is one batch (or old message) at the head of data.
type entry struct {
	raw  []byte
	base int64
	// end is the offset after the last one that the entry covers, even if compaction has
	// taken its last records away.
	end   int64
	magic byte
	attrs int16
	count int32
}

// nextEntry cuts the first entry off data. It reports false when there is none, or only
// a part of one, as brokers send at the end of what fits.
func nextEntry(data []byte) (e entry, rest []byte, ok bool, err error) {
	if len(data) <= magicAt {
		return e, nil, false, nil
	}
	length := int32(binary.BigEndian.Uint32(data[8:]))
	if length < magicAt+1-entryHead {
		return e, nil, false, fmt.Errorf("%w: a batch of %d bytes", errCorrupt, length)
	}
	size := entryHead + int(length)
	if len(data) < size {
		return e, nil, false, nil
	}
	e = entry{raw: data[:size:size], base: int64(binary.BigEndian.Uint64(data)), magic: data[magicAt]}
	e.end = e.base + 1
	switch {
	case e.magic > 2:
		return e, nil, false, fmt.Errorf("%w: unknown batch format %d", errCorrupt, e.magic)
	case e.magic == 2:
		if size < batchHead {
			return e, nil, false, fmt.Errorf("%w: a batch of %d bytes", errCorrupt, size)
		}
		e.attrs = int16(binary.BigEndian.Uint16(data[21:]))
		e.end = e.base + int64(int32(binary.BigEndian.Uint32(data[23:]))) + 1
		e.count = int32(binary.BigEndian.Uint32(data[57:]))
	}
	return e, data[size:], true, nil
}

const (
	compressionMask = 0x07
	logAppendTime   = 0x08
	controlBatch    = 0x20
)

// record is one record, whose parts lie in the memory of its batch.
type record struct {
	offset int64
	time   int64 // Unix milliseconds; negative when there is none
	// key and value are nil when they are null.
	key, value []byte
	headers    int32  // how many
	rawHeaders []byte // and where they are
}

// cursor walks through the records of one entry.
type cursor struct {
	data  []byte
	left  int32
	base  int64
	first int64 // the first timestamp
	fixed int64 // the timestamp of all, with log append time; else -1
	old   []record
}

// open begins to read an entry. Control batches have no records for anyone.
func (e *entry) open() (cursor, error) {
	if e.magic < 2 {
		return e.openOld()
	}
	if crc32.Checksum(e.raw[21:], castagnoli) != binary.BigEndian.Uint32(e.raw[17:]) {
		return cursor{}, fmt.Errorf("%w: checksum", errCorrupt)
	}
	if e.attrs&controlBatch != 0 || e.count <= 0 {
		return cursor{}, nil
	}
	c := cursor{
		data: e.raw[batchHead:], left: e.count, base: e.base,
		first: int64(binary.BigEndian.Uint64(e.raw[27:])), fixed: -1,
	}
	if e.attrs&logAppendTime != 0 {
		c.fixed = int64(binary.BigEndian.Uint64(e.raw[35:]))
	}
	if codec := compress.Compression(e.attrs & compressionMask); codec != compress.None {
		var err error
		if c.data, err = inflate(codec, c.data); err != nil {
			return cursor{}, err
		}
	}
	return c, nil
}

func inflate(compression compress.Compression, data []byte) ([]byte, error) {
	if compression == compress.Snappy {
		out, err := unsnappy(data)
		if err != nil && !errors.Is(err, errTooMuch) {
			err = fmt.Errorf("%w: %w", errCorrupt, err)
		}
		return out, err
	}
	codec := compression.Codec()
	if codec == nil {
		return nil, fmt.Errorf("unknown compression %d", compression)
	}
	r := codec.NewReader(bytes.NewReader(data))
	defer r.Close()
	out := bytes.NewBuffer(make([]byte, 0, 4*len(data)))
	if _, err := out.ReadFrom(io.LimitReader(r, maxInflated+1)); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errCorrupt, codec.Name(), err)
	}
	if out.Len() > maxInflated {
		return nil, errTooMuch
	}
	return out.Bytes(), nil
}

// openOld leaves message sets of old to kafka-go, which knows all their forms.
func (e *entry) openOld() (cursor, error) {
	framed := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(e.raw)), uint32(len(e.raw)))
	var set protocol.RecordSet
	if _, err := set.ReadFrom(bytes.NewBuffer(append(framed, e.raw...))); err != nil {
		return cursor{}, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	var c cursor
	for set.Records != nil {
		r, err := set.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return cursor{}, fmt.Errorf("%w: %w", errCorrupt, err)
		}
		key, err := protocol.ReadAll(r.Key)
		if err != nil {
			return cursor{}, fmt.Errorf("%w: %w", errCorrupt, err)
		}
		value, err := protocol.ReadAll(r.Value)
		if err != nil {
			return cursor{}, fmt.Errorf("%w: %w", errCorrupt, err)
		}
		c.old = append(c.old, record{offset: r.Offset, time: r.Time.UnixMilli(), key: key, value: value})
	}
	return c, nil
}

// next reads one record. It reports false at the end.
func (c *cursor) next(r *record) (bool, error) {
	if len(c.old) > 0 {
		*r, c.old = c.old[0], c.old[1:]
		return true, nil
	}
	if c.left == 0 {
		return false, nil
	}
	c.left--
	var p parser
	p.data = c.data
	body := p.bytes(p.varint())
	c.data = p.data
	if p.bad {
		return false, fmt.Errorf("%w: a record is cut off", errCorrupt)
	}
	p.data = body
	p.take(1) // attributes, which are not used
	r.time = c.first + p.varint()
	if c.fixed >= 0 {
		r.time = c.fixed
	}
	r.offset = c.base + p.varint()
	r.key = p.bytes(p.varint())
	r.value = p.bytes(p.varint())
	r.headers = int32(p.varint())
	r.rawHeaders = p.data
	if p.bad || r.headers < 0 || int(r.headers) > len(p.data) {
		return false, fmt.Errorf("%w: record %d", errCorrupt, r.offset)
	}
	return true, nil
}

// eachHeader calls f with each header of the record.
func (r *record) eachHeader(f func(name, value []byte)) error {
	p := parser{data: r.rawHeaders}
	for range r.headers {
		name := p.bytes(p.varint())
		value := p.bytes(p.varint())
		if p.bad {
			return fmt.Errorf("%w: headers of record %d", errCorrupt, r.offset)
		}
		f(name, value)
	}
	return nil
}

// parser takes Kafka's wire form apart; bad sticks, so that callers check once.
type parser struct {
	data []byte
	bad  bool
}

func (p *parser) take(n int) []byte {
	if n < 0 || n > len(p.data) {
		p.bad = true
		p.data = nil
		return nil
	}
	b := p.data[:n:n]
	p.data = p.data[n:]
	return b
}

// bytes takes n bytes; -1 is null.
func (p *parser) bytes(n int64) []byte {
	if n == -1 {
		return nil
	}
	if n < 0 || n > int64(len(p.data)) {
		p.bad = true
		p.data = nil
		return nil
	}
	return p.take(int(n))
}

func (p *parser) varint() int64 {
	v, n := binary.Varint(p.data)
	if n <= 0 {
		p.bad = true
		p.data = nil
		return 0
	}
	p.data = p.data[n:]
	return v
}

func (p *parser) int16() int16 {
	if b := p.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (p *parser) int32() int32 {
	if b := p.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (p *parser) int64() int64 {
	if b := p.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}
