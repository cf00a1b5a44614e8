package smftest

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Structured data types. An item is a byte with its type and the width of its length,
// the length (all of it counted), and the value.
const (
	sdtNull   = 0
	sdtBool   = 1
	sdtInt    = 2
	sdtUint   = 3
	sdtFloat  = 4
	sdtChar   = 5
	sdtBytes  = 6
	sdtString = 7
	sdtPlace  = 8 // a destination
	sdtMap    = 10
	sdtStream = 11
)

// place is a destination.
type place struct {
	queue bool
	name  string
}

// pair is an entry of a map, whose order is kept.
type pair struct {
	name  string
	value any
}

// appendItem appends a value with its type. Unknown types are an error.
func appendItem(b []byte, value any) ([]byte, error) {
	switch v := value.(type) {
	case nil:
		return append(b, sdtNull<<2, 2), nil
	case bool:
		bit := byte(0)
		if v {
			bit = 1
		}
		return append(b, sdtBool<<2, 3, bit), nil
	case string:
		return appendSized(b, sdtString, append([]byte(v), 0)), nil
	case []byte:
		return appendSized(b, sdtBytes, v), nil
	case float32:
		return binary.BigEndian.AppendUint32(append(b, sdtFloat<<2, 6), math.Float32bits(v)), nil
	case float64:
		return binary.BigEndian.AppendUint64(append(b, sdtFloat<<2, 10), math.Float64bits(v)), nil
	case place:
		kind := byte(0)
		if v.queue {
			kind = 1
		}
		return appendSized(b, sdtPlace, append(append([]byte{kind}, v.name...), 0)), nil
	case []pair:
		return appendMap(b, v)
	default:
		return appendInteger(b, value)
	}
}

func appendInteger(b []byte, value any) ([]byte, error) {
	switch v := value.(type) {
	case int:
		return appendInteger(b, int64(v))
	case int8:
		return append(b, sdtInt<<2, 3, byte(v)), nil
	case uint8:
		return append(b, sdtUint<<2, 3, v), nil
	case int16:
		return binary.BigEndian.AppendUint16(append(b, sdtInt<<2, 4), uint16(v)), nil
	case uint16:
		return binary.BigEndian.AppendUint16(append(b, sdtUint<<2, 4), v), nil
	case int32:
		return binary.BigEndian.AppendUint32(append(b, sdtInt<<2, 6), uint32(v)), nil
	case uint32:
		return binary.BigEndian.AppendUint32(append(b, sdtUint<<2, 6), v), nil
	case int64:
		return binary.BigEndian.AppendUint64(append(b, sdtInt<<2, 10), uint64(v)), nil
	case uint64:
		return binary.BigEndian.AppendUint64(append(b, sdtUint<<2, 10), v), nil
	default:
		return nil, fmt.Errorf("a property can't be a %T", value)
	}
}

// appendMap appends a map, whose names are strings.
func appendMap(b []byte, pairs []pair) ([]byte, error) {
	var inner []byte
	var err error
	for _, p := range pairs {
		inner = appendSized(inner, sdtString, append([]byte(p.name), 0))
		if inner, err = appendItem(inner, p.value); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return appendWide(b, sdtMap, inner), nil
}

// appendSized appends a value with the shortest length that fits.
func appendSized(b []byte, kind byte, value []byte) []byte {
	switch n := len(value); {
	case n+2 <= math.MaxUint8:
		b = append(b, kind<<2, byte(n+2))
	case n+3 <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, kind<<2|1), uint16(n+3))
	default:
		return appendWide(b, kind, value)
	}
	return append(b, value...)
}

// appendWide appends a value with a length of four bytes, as containers have it.
func appendWide(b []byte, kind byte, value []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, kind<<2|3), uint32(len(value)+5))
	return append(b, value...)
}

// nextItem splits the first item off.
func nextItem(b []byte) (kind byte, value, rest []byte, err error) {
	if len(b) == 0 {
		return 0, nil, nil, fmt.Errorf("%w: structured data end early", errMalformed)
	}
	head := 2 + int(b[0]&3)
	if len(b) < head {
		return 0, nil, nil, fmt.Errorf("%w: structured data end early", errMalformed)
	}
	size := number(b[1:head])
	if size < uint64(head) || size > uint64(len(b)) {
		return 0, nil, nil, fmt.Errorf("%w: structured data item of %d bytes", errMalformed, size)
	}
	return b[0] >> 2, b[head:size], b[size:], nil
}

// item decodes a value. A map becomes []pair, a stream []any, what is unknown its bytes.
func item(kind byte, value []byte, depth int) (any, error) {
	switch kind {
	case sdtNull:
		return nil, nil
	case sdtBool:
		return number(value) != 0, nil
	case sdtInt:
		return signed(value), nil
	case sdtUint:
		return unsigned(value), nil
	case sdtFloat:
		if len(value) == 4 {
			return math.Float32frombits(uint32(number(value))), nil
		}
		return math.Float64frombits(number(value)), nil
	case sdtString:
		return text(value), nil
	case sdtPlace:
		if len(value) == 0 {
			return nil, fmt.Errorf("%w: empty destination", errMalformed)
		}
		return place{value[0] == 1, text(value[1:])}, nil
	case sdtMap:
		return pairsOf(value, depth)
	case sdtStream:
		return itemsOf(value, depth)
	default:
		return slices.Clone(value), nil
	}
}

// signed keeps the width that the sender chose.
func signed(b []byte) any {
	n := number(b)
	switch len(b) {
	case 1:
		return int8(n)
	case 2:
		return int16(n)
	case 4:
		return int32(n)
	default:
		return int64(n)
	}
}

func unsigned(b []byte) any {
	n := number(b)
	switch len(b) {
	case 1:
		return uint8(n)
	case 2:
		return uint16(n)
	case 4:
		return uint32(n)
	default:
		return n
	}
}

// maxDepth bounds how deep structured data may be nested.
const maxDepth = 32

func pairsOf(b []byte, depth int) ([]pair, error) {
	items, err := itemsOf(b, depth)
	if err != nil {
		return nil, err
	}
	if len(items)%2 != 0 {
		return nil, fmt.Errorf("%w: a map with a name and no value", errMalformed)
	}
	pairs := make([]pair, 0, len(items)/2)
	for i := 0; i < len(items); i += 2 {
		name, isText := items[i].(string)
		if !isText {
			return nil, fmt.Errorf("%w: a map with a name that is a %T", errMalformed, items[i])
		}
		pairs = append(pairs, pair{name, items[i+1]})
	}
	return pairs, nil
}

func itemsOf(b []byte, depth int) ([]any, error) {
	if depth >= maxDepth {
		return nil, fmt.Errorf("%w: structured data are nested too deep", errMalformed)
	}
	var items []any
	for len(b) > 0 {
		kind, value, rest, err := nextItem(b)
		if err != nil {
			return nil, err
		}
		v, err := item(kind, value, depth+1)
		if err != nil {
			return nil, err
		}
		items, b = append(items, v), rest
	}
	return items, nil
}
