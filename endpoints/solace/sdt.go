//go:build cgo && (linux || darwin)

package solace

import (
	"encoding/binary"
	"math"
	"strings"
	"unicode/utf8"
)

// Other clients may send a text, a map or a stream instead of bytes, encoded as structured
// data types (SDT). The library does not say which it was, and takes apart whatever looks
// like it begins so. So does this, but more strictly: what is not, to its last byte, a
// value of such a type, is bytes.

// The types of SDT. The head byte of a value is its type, and behind it how many bytes of
// length follow; the length is that of the whole value.
const (
	sdtNull = iota
	sdtBool
	sdtInt
	sdtUint
	sdtFloat
	sdtChar
	sdtBytes
	sdtString
	sdtDestination
	_
	sdtMap
	sdtStream
)

// maxNesting bounds how deep maps and streams may lie in each other.
const maxNesting = 32

// typed is the value that a payload is of a type of Solace's: a text, a map or a list.
func typed(payload []byte) (value any, ok bool) {
	if len(payload) < 3 {
		return nil, false
	}
	switch payload[0] >> 2 {
	case sdtString, sdtMap, sdtStream:
	default:
		return nil, false
	}
	value, rest, ok := sdtValue(payload, 0)
	return value, ok && len(rest) == 0
}

// sdtValue takes the next value apart.
func sdtValue(b []byte, depth int) (value any, rest []byte, ok bool) {
	if len(b) < 2 || depth > maxNesting {
		return nil, nil, false
	}
	width := int(b[0]&3) + 1
	if len(b) < 1+width {
		return nil, nil, false
	}
	length := 0
	for _, x := range b[1 : 1+width] {
		length = length<<8 | int(x)
	}
	if length < 1+width || length > len(b) {
		return nil, nil, false
	}
	value, ok = sdtContent(b[0]>>2, b[1+width:length], depth)
	return value, b[length:], ok
}

func sdtContent(kind byte, b []byte, depth int) (value any, ok bool) {
	switch kind {
	case sdtNull:
		return nil, len(b) == 0
	case sdtBool:
		return len(b) == 1 && b[0] != 0, len(b) == 1
	case sdtInt, sdtUint:
		return sdtNumber(kind, b)
	case sdtFloat:
		switch len(b) {
		case 4:
			return float64(math.Float32frombits(binary.BigEndian.Uint32(b))), true
		case 8:
			return math.Float64frombits(binary.BigEndian.Uint64(b)), true
		}
	case sdtChar:
		if len(b) == 2 {
			return string(rune(binary.BigEndian.Uint16(b))), true
		}
	case sdtBytes:
		return b, true
	case sdtString:
		return sdtText(b)
	case sdtDestination:
		if len(b) > 1 {
			return sdtText(b[1:])
		}
	case sdtMap:
		return sdtFields(b, depth)
	case sdtStream:
		return sdtItems(b, depth)
	}
	return nil, false
}

func sdtText(b []byte) (any, bool) {
	last := len(b) - 1
	if last < 0 || b[last] != 0 {
		return nil, false
	}
	text := string(b[:last])
	return text, utf8.ValidString(text) && !strings.ContainsRune(text, 0)
}

func sdtNumber(kind byte, b []byte) (any, bool) {
	if len(b) != 1 && len(b) != 2 && len(b) != 4 && len(b) != 8 {
		return nil, false
	}
	var n uint64
	for _, x := range b {
		n = n<<8 | uint64(x)
	}
	if kind == sdtUint {
		return n, true
	}
	shift := 64 - 8*len(b)
	return int64(n<<shift) >> shift, true //nolint:gosec // that is what it stands for
}

func sdtFields(b []byte, depth int) (any, bool) {
	fields := make(map[string]any)
	for len(b) > 0 {
		var name, value any
		var ok bool
		if name, b, ok = sdtValue(b, depth+1); !ok {
			return nil, false
		}
		text, isText := name.(string)
		if !isText {
			return nil, false
		}
		if value, b, ok = sdtValue(b, depth+1); !ok {
			return nil, false
		}
		fields[text] = value
	}
	return fields, true
}

func sdtItems(b []byte, depth int) (any, bool) {
	items := []any{}
	for len(b) > 0 {
		var item any
		var ok bool
		if item, b, ok = sdtValue(b, depth+1); !ok {
			return nil, false
		}
		items = append(items, item)
	}
	return items, true
}
