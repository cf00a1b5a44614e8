package servicebustest

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// The append functions add one encoded AMQP value.

func appendNull(b []byte) []byte { return append(b, 0x40) }

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 0x41)
	}
	return append(b, 0x42)
}

func appendUbyte(b []byte, v byte) []byte { return append(b, 0x50, v) }

func appendUshort(b []byte, v uint16) []byte {
	return binary.BigEndian.AppendUint16(append(b, 0x60), v)
}

func appendUint(b []byte, v uint32) []byte {
	switch {
	case v == 0:
		return append(b, 0x43)
	case v < 256:
		return append(b, 0x52, byte(v))
	}
	return binary.BigEndian.AppendUint32(append(b, 0x70), v)
}

func appendUlong(b []byte, v uint64) []byte {
	if v < 256 {
		return append(b, 0x53, byte(v))
	}
	return binary.BigEndian.AppendUint64(append(b, 0x80), v)
}

func appendInt(b []byte, v int32) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0x71), uint32(v))
}

func appendLong(b []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0x81), uint64(v))
}

func appendTime(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0x83), uint64(t.UnixMilli()))
}

func appendUUID(b []byte, v uuid) []byte { return append(append(b, 0x98), v[:]...) }

// appendSized adds binary (0xa0), a string (0xa1) or a symbol (0xa3).
func appendSized[T ~string | ~[]byte](b []byte, code byte, v T) []byte {
	if len(v) < 256 {
		return append(append(b, code, byte(len(v))), v...)
	}
	b = binary.BigEndian.AppendUint32(append(b, code|0x10), uint32(len(v)))
	return append(b, v...)
}

func appendBinary(b, v []byte) []byte        { return appendSized(b, 0xa0, v) }
func appendString(b []byte, v string) []byte { return appendSized(b, 0xa1, v) }
func appendSymbol(b []byte, v symbol) []byte { return appendSized(b, 0xa3, v) }
func appendOptional(b []byte, v string) []byte {
	if v == "" {
		return appendNull(b)
	}
	return appendString(b, v)
}

// openCompound begins a list (0xd0), map (0xd1) or array (0xf0); closeCompound fills in size and count.
func openCompound(b []byte, code byte) ([]byte, int) {
	return append(b, code, 0, 0, 0, 0, 0, 0, 0, 0), len(b) + 1
}

func closeCompound(b []byte, mark, count int) []byte {
	binary.BigEndian.PutUint32(b[mark:], uint32(len(b)-mark-4))
	binary.BigEndian.PutUint32(b[mark+4:], uint32(count))
	return b
}

// openComposite begins a described list. Descriptors are smallulong: some clients take no other.
func openComposite(b []byte, code byte) ([]byte, int) {
	return openCompound(append(b, 0x00, 0x53, code), 0xd0)
}

// appendValue adds any value that a reply or a kept property may hold.
func appendValue(b []byte, value any) []byte {
	switch v := value.(type) {
	case nil:
		return appendNull(b)
	case bool:
		return appendBool(b, v)
	case uint8:
		return appendUbyte(b, v)
	case uint16:
		return appendUshort(b, v)
	case uint32:
		return appendUint(b, v)
	case uint64:
		return appendUlong(b, v)
	case int8:
		return append(b, 0x51, byte(v))
	case int16:
		return binary.BigEndian.AppendUint16(append(b, 0x61), uint16(v))
	case int32:
		return appendInt(b, v)
	case int64:
		return appendLong(b, v)
	case float32, float64, opaque:
		return appendFixed(b, v)
	case string:
		return appendString(b, v)
	case symbol:
		return appendSymbol(b, v)
	case []byte:
		return appendBinary(b, v)
	case time.Time:
		return appendTime(b, v)
	case uuid:
		return appendUUID(b, v)
	case described:
		return appendValue(appendValue(append(b, 0x00), v.descriptor), v.value)
	}
	return appendCollection(b, value)
}

func appendCollection(b []byte, value any) []byte {
	var mark int
	switch v := value.(type) {
	case []any:
		b, mark = openCompound(b, 0xd0)
		for _, element := range v {
			b = appendValue(b, element)
		}
		return closeCompound(b, mark, len(v))
	case map[any]any:
		b, mark = openCompound(b, 0xd1)
		for key, element := range v {
			b = appendValue(appendValue(b, key), element)
		}
		return closeCompound(b, mark, 2*len(v))
	case map[string]any:
		b, mark = openCompound(b, 0xd1)
		for key, element := range v {
			b = appendValue(appendString(b, key), element)
		}
		return closeCompound(b, mark, 2*len(v))
	case []int64:
		b, mark = openCompound(b, 0xf0)
		b = append(b, 0x81)
		for _, element := range v {
			b = binary.BigEndian.AppendUint64(b, uint64(element))
		}
		return closeCompound(b, mark, len(v))
	case []time.Time:
		b, mark = openCompound(b, 0xf0)
		b = append(b, 0x83)
		for _, element := range v {
			b = binary.BigEndian.AppendUint64(b, uint64(element.UnixMilli()))
		}
		return closeCompound(b, mark, len(v))
	case []string:
		b, mark = openCompound(b, 0xf0)
		b = append(b, 0xb1)
		for _, element := range v {
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(element))), element...)
		}
		return closeCompound(b, mark, len(v))
	}
	panic(fmt.Sprintf("servicebustest: no encoding for %T", value))
}

func appendFixed(b []byte, value any) []byte {
	switch v := value.(type) {
	case float32:
		return binary.BigEndian.AppendUint32(append(b, 0x72), math.Float32bits(v))
	case float64:
		return binary.BigEndian.AppendUint64(append(b, 0x82), math.Float64bits(v))
	case opaque:
		return append(append(b, v.code), v.data...)
	}
	return b
}
