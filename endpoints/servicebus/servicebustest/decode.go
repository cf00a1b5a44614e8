package servicebustest

import (
	"errors"
	"math"
	"time"
)

// The AMQP types that Go has no own type for.
type (
	symbol    string
	uuid      [16]byte
	described struct{ descriptor, value any }
	// opaque is a value that nobody here looks into: a char or a decimal.
	opaque struct {
		code byte
		data []byte
	}
)

const (
	maxDepth = 32
	// maxElements bounds arrays whose elements take no bytes.
	maxElements = 65536
)

var (
	errTruncated = errors.New("AMQP value is cut short")
	errMalformed = errors.New("AMQP value is malformed")
	errTooDeep   = errors.New("AMQP value is nested too deeply")
)

// decoder reads AMQP values from a slice that it does not own. The first error sticks, and empties it.
type decoder struct {
	buf   []byte
	depth int
	err   error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.buf = nil
}

// take returns the next n bytes, not copied; nil after an error.
func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.buf) {
		d.fail(errTruncated)
		return nil
	}
	b := d.buf[:n]
	d.buf = d.buf[n:]
	return b
}

func (d *decoder) octet() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

// number reads n bytes, big endian.
func (d *decoder) number(n int) uint64 {
	var v uint64
	for _, b := range d.take(n) {
		v = v<<8 | uint64(b)
	}
	return v
}

// width is how many bytes follow the constructor, by the AMQP type's category; sized tells that these are the size.
func width(code byte) (n int, sized bool) {
	switch code >> 4 {
	case 0x4:
		return 0, false
	case 0x5:
		return 1, false
	case 0x6:
		return 2, false
	case 0x7:
		return 4, false
	case 0x8:
		return 8, false
	case 0x9:
		return 16, false
	case 0xa, 0xc, 0xe:
		return 1, true
	case 0xb, 0xd, 0xf:
		return 4, true
	}
	return -1, false
}

// raw steps over one value and returns its bytes with constructor, not copied.
func (d *decoder) raw() []byte {
	start := d.buf
	d.step(0)
	if d.err != nil {
		return nil
	}
	return start[:len(start)-len(d.buf)]
}

func (d *decoder) step(depth int) {
	code := d.octet()
	if code == 0 && d.err == nil {
		if depth > maxDepth {
			d.fail(errTooDeep)
			return
		}
		d.step(depth + 1)
		d.step(depth + 1)
		return
	}
	n, sized := width(code)
	if n < 0 {
		d.fail(errMalformed)
		return
	}
	if sized {
		n = int(d.number(n))
	}
	d.take(n)
}

// value reads one value. Byte strings are copied.
func (d *decoder) value() any {
	code := d.octet()
	if d.err != nil {
		return nil
	}
	if code != 0 {
		return d.constructed(code)
	}
	if !d.enter() {
		return nil
	}
	defer d.leave()
	return described{d.value(), d.value()}
}

func (d *decoder) enter() bool {
	if d.depth++; d.depth > maxDepth {
		d.fail(errTooDeep)
		return false
	}
	return true
}

func (d *decoder) leave() { d.depth-- }

func (d *decoder) constructed(code byte) any {
	switch code {
	case 0x40:
		return nil
	case 0x41, 0x42:
		return code == 0x41
	case 0x56:
		return d.octet() != 0
	case 0x50:
		return d.octet()
	case 0x60:
		return uint16(d.number(2))
	case 0x43, 0x52, 0x70:
		return uint32(d.unsigned(code))
	case 0x44, 0x53, 0x80:
		return d.unsigned(code)
	case 0x51:
		return int8(d.octet())
	case 0x61:
		return int16(d.number(2))
	case 0x54:
		return int32(int8(d.octet()))
	case 0x71:
		return int32(d.number(4))
	case 0x55:
		return int64(int8(d.octet()))
	case 0x81:
		return int64(d.number(8))
	case 0x72:
		return math.Float32frombits(uint32(d.number(4)))
	case 0x82:
		return math.Float64frombits(d.number(8))
	case 0x83:
		return time.UnixMilli(int64(d.number(8))).UTC()
	case 0x98:
		return uuid(append(make([]byte, 0, 16), pad16(d.take(16))...))
	case 0xa0, 0xb0:
		return append([]byte{}, d.sized(code)...)
	case 0xa1, 0xb1:
		return string(d.sized(code))
	case 0xa3, 0xb3:
		return symbol(d.sized(code))
	case 0x45, 0xc0, 0xd0:
		return d.list(code)
	case 0xc1, 0xd1:
		return d.mapping(code)
	case 0xe0, 0xf0:
		return d.array(code)
	case 0x73, 0x74, 0x84, 0x94:
		n, _ := width(code)
		return opaque{code, append([]byte{}, d.take(n)...)}
	}
	d.fail(errMalformed)
	return nil
}

func pad16(b []byte) []byte {
	if b == nil {
		return make([]byte, 16)
	}
	return b
}

// unsigned reads what follows the constructor of any unsigned integer.
func (d *decoder) unsigned(code byte) uint64 {
	switch code {
	case 0x43, 0x44:
		return 0
	case 0x50, 0x52, 0x53, 0x60, 0x70, 0x80:
		n, _ := width(code)
		return d.number(n)
	}
	d.fail(errMalformed)
	return 0
}

// sized reads what follows the constructor of a type with a size.
func (d *decoder) sized(code byte) []byte {
	n, sized := width(code)
	if !sized {
		d.fail(errMalformed)
		return nil
	}
	return d.take(int(d.number(n)))
}

// compound opens a list, map or array: the decoder of its inside, and how many elements it says to have.
func (d *decoder) compound(code byte) (decoder, int) {
	if code == 0x45 {
		return decoder{}, 0
	}
	inside := decoder{buf: d.sized(code), depth: d.depth}
	n, _ := width(code)
	count := inside.number(n)
	if d.err == nil && inside.err != nil {
		d.fail(inside.err)
	}
	if count > maxElements && count > uint64(len(inside.buf)) {
		d.fail(errMalformed)
		return decoder{}, 0
	}
	return inside, int(count)
}

func (d *decoder) list(code byte) []any {
	if !d.enter() {
		return nil
	}
	defer d.leave()
	inside, count := d.compound(code)
	if count > len(inside.buf) {
		d.fail(errTruncated)
		return nil
	}
	list := make([]any, 0, count)
	for range count {
		list = append(list, inside.value())
	}
	d.settle(&inside)
	return list
}

// mapping reads a map; symbols become string keys.
func (d *decoder) mapping(code byte) map[any]any {
	if !d.enter() {
		return nil
	}
	defer d.leave()
	inside, count := d.compound(code)
	if count > len(inside.buf) || count%2 != 0 {
		d.fail(errMalformed)
		return nil
	}
	m := make(map[any]any, count/2)
	for range count / 2 {
		key, value := inside.value(), inside.value()
		switch k := key.(type) {
		case symbol:
			key = string(k)
		case string, bool, uint8, uint16, uint32, uint64, int8, int16, int32, int64, uuid, time.Time:
		default:
			inside.fail(errMalformed)
		}
		if inside.err != nil {
			break
		}
		m[key] = value
	}
	d.settle(&inside)
	return m
}

func (d *decoder) array(code byte) []any {
	if !d.enter() {
		return nil
	}
	defer d.leave()
	inside, count := d.compound(code)
	if count == 0 {
		return []any{}
	}
	element := inside.octet()
	n, sized := width(element)
	if n < 0 || (n > 0 || sized) && count > len(inside.buf) {
		d.fail(errMalformed) // also arrays of described types, which nobody sends
		return nil
	}
	list := make([]any, 0, count)
	for i := 0; i < count && inside.err == nil; i++ {
		list = append(list, inside.constructed(element))
	}
	d.settle(&inside)
	return list
}

// settle takes over the error of what was read inside a compound.
func (d *decoder) settle(inside *decoder) {
	if inside.err != nil {
		d.fail(inside.err)
	}
}
