package servicebustest

// pairs are the entries of an AMQP map, encoded one after the other.
type pairs struct {
	count   int // keys and values
	encoded []byte
}

// each calls f with the key (of a string or symbol) and the encoded pair, until f answers false.
func (p pairs) each(f func(key string, value, pair []byte) bool) error {
	d := decoder{buf: p.encoded}
	for len(d.buf) > 0 && d.err == nil {
		start := d.buf
		key := ""
		if code := start[0]; code == 0xa1 || code == 0xb1 || code == 0xa3 || code == 0xb3 {
			key = string(d.sized(d.octet()))
		} else {
			d.raw()
		}
		value := d.raw()
		if d.err == nil && !f(key, value, start[:len(start)-len(d.buf)]) {
			break
		}
	}
	return d.err
}

// without leaves out the entries that drop names.
func (p pairs) without(drop func(key string) bool) (pairs, error) {
	var kept pairs
	whole := true
	err := p.each(func(key string, _, pair []byte) bool {
		if drop(key) {
			whole = false
			return true
		}
		kept.count += 2
		kept.encoded = append(kept.encoded, pair...)
		return true
	})
	if whole {
		return p, err
	}
	return kept, err
}

// with sets an entry.
func (p pairs) with(key string, value any) pairs {
	kept, _ := p.without(func(k string) bool { return k == key })
	encoded := append([]byte(nil), kept.encoded...)
	return pairs{kept.count + 2, appendValue(appendString(encoded, key), value)}
}

func (p pairs) value(key string) (value any) {
	_ = p.each(func(k string, encoded, _ []byte) bool {
		if k != key {
			return true
		}
		d := decoder{buf: encoded}
		value = d.value()
		return false
	})
	return value
}

// pairs opens a map and steps over it.
func (d *decoder) pairs() pairs {
	code := d.octet()
	if code != 0xc1 && code != 0xd1 {
		d.fail(errMalformed)
		return pairs{}
	}
	inside, count := d.compound(code)
	p := pairs{count, inside.buf}
	n := 0
	if err := p.each(func(string, []byte, []byte) bool { n += 2; return true }); err != nil {
		d.fail(err)
	} else if n != count {
		d.fail(errMalformed)
	}
	return p
}
