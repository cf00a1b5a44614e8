package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// encoded makes a record set with kafka-go's encoder, without its length.
func encoded(t testing.TB, version int8, attributes protocol.Attributes, records ...protocol.Record) []byte {
	t.Helper()
	set := protocol.RecordSet{Version: version, Attributes: attributes, Records: protocol.NewRecordReader(records...)}
	var buf bytes.Buffer
	if _, err := set.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()[4:]
}

func samples() []protocol.Record {
	at := time.UnixMilli(1_700_000_000_000)
	return []protocol.Record{
		{Offset: 0, Time: at, Key: protocol.NewBytes([]byte("k")), Value: protocol.NewBytes([]byte("one"))},
		{Offset: 1, Time: at.Add(5), Value: protocol.NewBytes([]byte("two"))},
		{Offset: 2, Time: at.Add(time.Second), Key: protocol.NewBytes([]byte{}), Value: nil},
	}
}

// rebase moves a batch to another offset, and repairs its checksum after changes.
func rebase(batch []byte, base int64) []byte {
	binary.BigEndian.PutUint64(batch, uint64(base))
	binary.BigEndian.PutUint32(batch[17:], crc32.Checksum(batch[21:], castagnoli))
	return batch
}

func readAll(t testing.TB, data []byte) (all []record) {
	t.Helper()
	for len(data) > 0 {
		e, rest, ok, err := nextEntry(data)
		if err != nil || !ok {
			t.Fatalf("%v, %v", ok, err)
		}
		c, err := e.open()
		if err != nil {
			t.Fatal(err)
		}
		for {
			var r record
			ok, err := c.next(&r)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			all = append(all, r)
		}
		data = rest
	}
	return all
}

func TestDecodeEveryFormat(t *testing.T) {
	for _, version := range []int8{1, 2} {
		for codec := range int8(5) {
			if version == 1 && codec == 4 {
				continue // message sets never knew zstd
			}
			t.Run(fmt.Sprintf("v%d codec %d", version, codec), func(t *testing.T) {
				got := readAll(t, encoded(t, version, protocol.Attributes(codec), samples()...))
				if len(got) != 3 {
					t.Fatalf("%d records", len(got))
				}
				if string(got[0].key) != "k" || string(got[0].value) != "one" || got[0].time != 1_700_000_000_000 {
					t.Errorf("first is %+v", got[0])
				}
				if got[1].key != nil || got[2].value != nil || got[2].key == nil || got[2].time != 1_700_000_001_000 {
					t.Errorf("null and empty are confused: %+v, %+v", got[1], got[2])
				}
				if got[2].offset != 2 {
					t.Errorf("offset %d", got[2].offset)
				}
			})
		}
	}
}

func TestBatchEndsWhereItSays(t *testing.T) {
	batch := encoded(t, 2, 0, samples()...)
	binary.BigEndian.PutUint32(batch[23:], 9) // compaction has taken seven records from its end
	rebase(batch, 100)
	e, _, ok, err := nextEntry(batch)
	if err != nil || !ok || e.base != 100 || e.end != 110 {
		t.Errorf("%+v, %v, %v", e, ok, err)
	}
	for n := range len(batch) {
		if _, _, ok, err := nextEntry(batch[:n]); ok || err != nil {
			t.Fatalf("%d of %d bytes: %v, %v", n, len(batch), ok, err)
		}
	}
}

func TestLogAppendTimeAndControl(t *testing.T) {
	batch := encoded(t, 2, logAppendTime, samples()...)
	binary.BigEndian.PutUint64(batch[35:], 1_800_000_000_000)
	for _, r := range readAll(t, rebase(batch, 0)) {
		if r.time != 1_800_000_000_000 {
			t.Errorf("time %d", r.time)
		}
	}
	if all := readAll(t, encoded(t, 2, controlBatch, samples()...)); len(all) > 0 {
		t.Errorf("%d control records came through", len(all))
	}
	batch = encoded(t, 2, 0, samples()[0])
	binary.BigEndian.PutUint64(batch[27:], ^uint64(0)) // no timestamp is -1
	r := readAll(t, rebase(batch, 7))[0]
	var b builder
	d, err := b.delivery(&part{partition: partition{topic: "t"}}, &r, 1)
	if err != nil || !d.Time.IsZero() || d.Mark.Time != 0 || d.Mark.Next != 8 {
		t.Errorf("%+v, %v", d.Mark, err)
	}
	if _, ok := d.Field("timestamp"); ok {
		t.Error("a timestamp that is none")
	}
}

func TestDamageIsNoticed(t *testing.T) {
	good := encoded(t, 2, 0, samples()...)
	for i := 17; i < len(good); i++ {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		e, _, ok, err := nextEntry(bad)
		if err == nil && ok {
			_, err = e.open()
		}
		if err == nil || !errors.Is(err, errCorrupt) {
			t.Fatalf("byte %d was changed: %v", i, err)
		}
	}
}

func TestInflatedBatchIsBounded(t *testing.T) {
	big := protocol.NewBytes([]byte(strings.Repeat("x", maxInflated+1)))
	e, _, _, err := nextEntry(encoded(t, 2, protocol.Zstd, protocol.Record{Value: big}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.open(); !errors.Is(err, errTooMuch) {
		t.Errorf("%v", err)
	}
}

func TestSnappyInBothForms(t *testing.T) {
	text := bytes.Repeat([]byte("some text "), 10_000)
	framed := append(bytes.Clone(xerialMagic), 0, 0, 0, 1, 0, 0, 0, 1)
	for part := range slices.Chunk(text, 32<<10) {
		block := snappy.Encode(nil, part)
		framed = append(binary.BigEndian.AppendUint32(framed, uint32(len(block))), block...)
	}
	for name, data := range map[string][]byte{"block": snappy.Encode(nil, text), "framed": framed} {
		if got, err := unsnappy(data); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	for n := range xerialHeading + 100 {
		if n != xerialHeading {
			if got, err := unsnappy(framed[:n]); err == nil {
				t.Errorf("%d bytes of it inflate to %d", n, len(got))
			}
		}
	}
	lie := append(binary.AppendUvarint(nil, 1<<32-1), 0, 0)
	if _, err := unsnappy(lie); !errors.Is(err, errTooMuch) {
		t.Errorf("a block of 4 GiB: %v", err)
	}
}

func TestBuilderSharesAllocations(t *testing.T) {
	batch := encoded(t, 2, 0, func() []protocol.Record {
		all := make([]protocol.Record, chunk)
		for i := range all {
			all[i] = protocol.Record{Key: protocol.NewBytes([]byte("key")), Value: protocol.NewBytes([]byte("value"))}
		}
		return all
	}()...)
	e, _, _, err := nextEntry(batch)
	if err != nil {
		t.Fatal(err)
	}
	p := &part{partition: partition{topic: "orders"}, lane: "orders/0"}
	allocations := testing.AllocsPerRun(20, func() {
		c, err := e.open()
		if err != nil {
			t.Fatal(err)
		}
		var b builder
		var r record
		for {
			ok, err := c.next(&r)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return
			}
			if _, err := b.delivery(p, &r, int(c.left)+1); err != nil {
				t.Fatal(err)
			}
		}
	})
	if allocations > chunk/8 {
		t.Errorf("%v allocations for %d messages", allocations, chunk)
	}
}

func FuzzDecode(f *testing.F) {
	for codec := range protocol.Attributes(5) {
		f.Add(encoded(f, 2, codec, samples()...))
	}
	f.Add(encoded(f, 1, 0, samples()...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 61 && data[16] == 2 { // let the fuzzer past the checksum
			rebase(data, 0)
		}
		for {
			e, rest, ok, err := nextEntry(data)
			if !ok || err != nil {
				return
			}
			data = rest
			c, err := e.open()
			if err != nil {
				continue
			}
			var b builder
			for {
				var r record
				ok, err := c.next(&r)
				if !ok || err != nil {
					break
				}
				_, _ = b.delivery(&part{}, &r, 1)
			}
		}
	})
}

func FuzzFetchResponse(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 't', 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		frame := binary.BigEndian.AppendUint32(nil, uint32(len(data)+4))
		frame = append(binary.BigEndian.AppendUint32(frame, 7), data...)
		for version := int16(4); version <= 11; version++ {
			_, _ = readFetch(bytes.NewReader(frame), version, 7)
		}
	})
}

func TestGapsJoin(t *testing.T) {
	a := gapAt(message.GapExpired, partition{"t", 1}, 5, 10)
	b := gapAt(message.GapRecreated, partition{"t", 2}, 7, 0)
	if g := joinGaps(joinGaps(nil, a), b); g.Reason != message.GapExpired || !strings.Contains(g.Detail, "partition 1") ||
		!strings.Contains(g.Detail, "partition 2") {
		t.Errorf("%+v", g)
	}
	var g *message.Gap
	for range 256 {
		g = joinGaps(g, b)
	}
	if len(g.Detail) > 1000 {
		t.Errorf("%d bytes", len(g.Detail))
	}
}
