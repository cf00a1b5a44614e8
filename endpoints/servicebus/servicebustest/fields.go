package servicebustest

// fields reads the fields of a composite in order. A field that is missing or null has its default.
type fields struct {
	decoder
	left int
}

// composite reads the descriptor and opens the list of a performative, section or delivery state.
func (d *decoder) composite() (code uint64, f fields) {
	if d.octet() != 0 {
		d.fail(errMalformed)
		return 0, f
	}
	code = d.unsigned(d.octet())
	list := d.octet()
	switch list {
	case 0x45, 0xc0, 0xd0:
		f.decoder, f.left = d.compound(list)
	default:
		d.fail(errMalformed)
	}
	return code, f
}

// present tells whether the next field has a value, and steps over it where it has none.
func (f *fields) present() bool {
	if f.left == 0 || f.err != nil {
		return false
	}
	f.left--
	if len(f.buf) > 0 && f.buf[0] == 0x40 {
		f.buf = f.buf[1:]
		return false
	}
	return true
}

func (f *fields) skip(n int) {
	for range n {
		if f.present() {
			f.raw()
		}
	}
}

func (f *fields) uint(missing uint64) uint64 {
	if !f.present() {
		return missing
	}
	return f.unsigned(f.octet())
}

func (f *fields) u32(missing uint32) uint32 { return uint32(f.uint(uint64(missing))) }

func (f *fields) flag() bool {
	if !f.present() {
		return false
	}
	switch code := f.octet(); code {
	case 0x41, 0x42:
		return code == 0x41
	case 0x56:
		return f.octet() != 0
	}
	f.fail(errMalformed)
	return false
}

// bytes reads a binary, string or symbol, not copied.
func (f *fields) bytes() []byte {
	if !f.present() {
		return nil
	}
	return f.sized(f.octet())
}

func (f *fields) text() string { return string(f.bytes()) }

func (f *fields) any() any {
	if !f.present() {
		return nil
	}
	return f.value()
}

// nested opens a field that is a composite of its own.
func (f *fields) nested() (code uint64, inside fields, ok bool) {
	if !f.present() {
		return 0, inside, false
	}
	code, inside = f.composite()
	return code, inside, f.err == nil
}
