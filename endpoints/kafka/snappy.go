package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/klauspost/compress/snappy"
)

var (
	errTooMuch    = errors.New("a batch inflates to more than 64 MiB")
	errBadSnappy  = errors.New("bad snappy frame")
	xerialMagic   = []byte{130, 'S', 'N', 'A', 'P', 'P', 'Y', 0}
	xerialHeading = len(xerialMagic) + 8 // and two versions
)

// unsnappy inflates snappy in both forms that Kafka knows: one block, or the framing of
// Java's xerial library. kafka-go's reader believes whatever length a block claims to
// have; this one allocates nothing before it is checked.
func unsnappy(data []byte) ([]byte, error) {
	if !bytes.HasPrefix(data, xerialMagic) {
		return appendBlock(nil, data)
	}
	if len(data) < xerialHeading {
		return nil, errBadSnappy
	}
	var out []byte
	for data = data[xerialHeading:]; len(data) > 0; {
		if len(data) < 4 {
			return nil, errBadSnappy
		}
		size := binary.BigEndian.Uint32(data)
		if data = data[4:]; uint64(size) > uint64(len(data)) {
			return nil, errBadSnappy
		}
		var err error
		if out, err = appendBlock(out, data[:size]); err != nil {
			return nil, err
		}
		data = data[size:]
	}
	return out, nil
}

func appendBlock(out, block []byte) ([]byte, error) {
	n, err := snappy.DecodedLen(block)
	switch {
	case err != nil:
		return nil, err
	case len(out)+n > maxInflated:
		return nil, errTooMuch
	case len(out) == 0:
		return snappy.Decode(nil, block)
	}
	more, err := snappy.Decode(nil, block)
	return append(out, more...), err
}
