package entrypoints

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// WriteTimeout is how long a client may take nothing before it counts as stalled.
const WriteTimeout = 10 * time.Second

// Every error of a Writer wraps one of these: the exchange is over, and nothing more can
// be told to the client.
var (
	// ErrSlowClient: the client took nothing for too long (EndSlow).
	ErrSlowClient = errors.New("the client reads too slowly")
	// ErrClientGone: the connection or stream is broken (EndClient).
	ErrClientGone = errors.New("the client is gone")
)

const (
	// joinBelow is the size below which copying a piece into a common buffer is cheaper
	// than a write of its own.
	joinBelow = 4 << 10
	// joinSize bounds the common buffer: it is all the memory that a stalled client holds here.
	joinSize = 16 << 10
	// writeChunk is what must go out within one timeout. Without the cut, a big write to
	// a slow but healthy client would be taken for a stall.
	writeChunk = 64 << 10
)

var joinBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, joinSize)
	return &b
}}

// Writer writes a response in bursts: small pieces are joined, large ones go out as
// they are, and each burst ends in one flush. Between bursts it holds no buffer.
//
// It arms a write deadline, so that a client that takes nothing is cut. On HTTP/2 a
// deadline is a timer that resets even a silent stream, so it is cleared after each
// burst; elsewhere only a write looks at it, so it is moved only when less than
// three quarters of it is left, and cleared at the end. A Writer is for one goroutine.
type Writer struct {
	w           http.ResponseWriter
	rc          *http.ResponseController
	timeout     time.Duration
	deadline    time.Time
	clearAlways bool
	unlimited   bool
	stalled     bool
	joined      *[]byte
}

// NewWriter makes a Writer; timeout 0 means WriteTimeout. Finish must be called.
func NewWriter(w http.ResponseWriter, r *http.Request, timeout time.Duration) Writer {
	if timeout <= 0 {
		timeout = WriteTimeout
	}
	return Writer{w: w, rc: http.NewResponseController(w), timeout: timeout, clearAlways: r.ProtoMajor == 2}
}

// Put adds a piece to the burst. p is not kept and not changed.
func (w *Writer) Put(p []byte) error {
	if len(p) >= joinBelow {
		if err := w.writeJoined(); err != nil {
			return err
		}
		return w.write(p)
	}
	if w.joined != nil && len(*w.joined)+len(p) > joinSize {
		if err := w.writeJoined(); err != nil {
			return err
		}
	}
	if w.joined == nil {
		w.joined = joinBuffers.Get().(*[]byte)
	}
	*w.joined = append(*w.joined, p...)
	return nil
}

// PutAll adds pieces to the burst.
func (w *Writer) PutAll(pieces [][]byte) error {
	if len(pieces) == 1 && w.joined == nil {
		return w.write(pieces[0])
	}
	for _, p := range pieces {
		if err := w.Put(p); err != nil {
			return err
		}
	}
	return nil
}

// Flush ends the burst: all that was put has been given to the network when it returns
// without error.
func (w *Writer) Flush() error {
	if err := w.writeJoined(); err != nil {
		return err
	}
	w.arm()
	if err := w.rc.Flush(); err != nil {
		return w.failed("flushing to the client", err)
	}
	if w.clearAlways {
		w.clear()
	}
	return nil
}

// Finish must be called before the handler returns. It does not flush.
func (w *Writer) Finish() {
	w.release()
	if !w.deadline.IsZero() {
		w.clear()
	}
}

func (w *Writer) writeJoined() error {
	if w.joined == nil {
		return nil
	}
	err := w.write(*w.joined)
	w.release()
	return err
}

func (w *Writer) release() {
	if w.joined == nil {
		return
	}
	*w.joined = (*w.joined)[:0]
	joinBuffers.Put(w.joined)
	w.joined = nil
}

func (w *Writer) write(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), writeChunk)
		w.arm()
		if _, err := w.w.Write(p[:n]); err != nil {
			return w.failed("writing to the client", err)
		}
		p = p[n:]
	}
	return nil
}

// arm moves the deadline, unless most of it is left.
func (w *Writer) arm() {
	if w.unlimited {
		return
	}
	now := time.Now()
	if w.deadline.Sub(now) >= w.timeout*3/4 {
		return
	}
	deadline := now.Add(w.timeout)
	if err := w.rc.SetWriteDeadline(deadline); err != nil {
		w.unlimited = true // nothing below has deadlines, e.g. in a test
		return
	}
	w.deadline = deadline
}

func (w *Writer) clear() {
	if w.unlimited || w.stalled { // the expired deadline keeps net/http's last flush from blocking
		return
	}
	if err := w.rc.SetWriteDeadline(time.Time{}); err != nil {
		w.unlimited = true
	}
	w.deadline = time.Time{}
}

func (w *Writer) failed(doing string, err error) error {
	w.release()
	if !w.deadline.IsZero() && !time.Now().Before(w.deadline) {
		w.stalled = true
		return fmt.Errorf("%w: %s: nothing moved for %s: %w", ErrSlowClient, doing, w.timeout, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrClientGone, doing, err)
}
