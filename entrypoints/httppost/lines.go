package httppost

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync"
)

// errLineTooLong says that a line was longer than allowed; it was skipped.
var errLineTooLong = errors.New("line is too long")

// errEndless says that there is too much to skip: reading on makes no sense.
var errEndless = errors.New("too much to skip")

// skipFactor is how many times its bound a line may exceed and still be skipped, so that
// the lines after it are read.
const skipFactor = 8

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 32<<10) }}

// lines reads lines of bounded length.
type lines struct {
	r     *bufio.Reader
	limit int
	buf   []byte // a line that did not fit into the reader's buffer
	blank int
}

func newLines(body io.Reader, limit int64) *lines {
	l := &lines{r: readers.Get().(*bufio.Reader), limit: int(limit)}
	l.r.Reset(body)
	return l
}

// close gives the buffer back.
func (l *lines) close() {
	l.r.Reset(nil)
	readers.Put(l.r)
	l.r = nil
}

// next returns the next line that is not blank, without its end. It is valid until the
// next call. io.EOF comes after the last line; a last line without line end is a line.
func (l *lines) next() ([]byte, error) {
	for {
		line, err := l.read()
		if err != nil && (err != io.EOF || len(line) == 0) {
			return nil, err
		}
		if line = bytes.Trim(line, " \t\r\n"); len(line) > 0 {
			return line, nil
		}
		if err == io.EOF {
			return nil, io.EOF
		}
		if l.blank++; l.blank > MaxBatch {
			return nil, errEndless
		}
	}
}

func (l *lines) read() ([]byte, error) {
	const lineEnd = 2 // bytes of the line end, which are not content
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		if len(l.buf)+len(part) > l.limit+lineEnd {
			return nil, l.skip(err)
		}
		if err == nil && len(l.buf) == 0 {
			return part, nil
		}
		l.buf = append(l.buf, part...)
		if err != bufio.ErrBufferFull {
			return l.buf, err
		}
	}
}

// skip reads to the end of a line that is too long, err being that of the last read.
func (l *lines) skip(err error) error {
	skipped := 0
	for err == bufio.ErrBufferFull {
		if skipped > skipFactor*l.limit {
			return errEndless
		}
		var part []byte
		part, err = l.r.ReadSlice('\n')
		skipped += len(part)
	}
	if err != nil && err != io.EOF {
		return err
	}
	return errLineTooLong
}
