package servicebus

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// writeTimeout is how long the other side may refuse to take bytes.
const writeTimeout = 5 * time.Second

// errHungUp is the end of a connection that either side ended in good order.
var errHungUp = errors.New("the connection was closed")

// wire is what the library reads from and writes to. It tells when the connection ends,
// whether anything still comes, and that links were detached, which the library tells its
// users too late: when they have sent the next message into the void.
type wire struct {
	net.Conn
	lost  chan error   // yields one error
	heard atomic.Int64 // when something came last, in Unix nanoseconds
	ended atomic.Pointer[error]
	// The library reads from one goroutine, and writes from another.
	in, out frameScanner

	mu       sync.Mutex
	detached uint64 // links that the service has detached of its own accord
	asked    int    // detaches of ours that the service will answer with one
	owed     int    // detaches of the service that the library will answer
}

func newWire(conn net.Conn) *wire {
	w := &wire{Conn: conn, lost: make(chan error, 1)}
	w.heard.Store(time.Now().UnixNano())
	w.in.detach, w.out.detach = w.detachCame, w.detachWent
	return w
}

func (w *wire) detachCame() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked > 0 {
		w.asked--
		return
	}
	w.owed++
	w.detached++
}

func (w *wire) detachWent() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owed > 0 {
		w.owed--
		return
	}
	w.asked++
}

// detaches is how many links the service has detached so far.
func (w *wire) detaches() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.detached
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.heard.Store(time.Now().UnixNano())
		w.in.scan(p[:n])
	}
	if err != nil {
		w.end(err)
	}
	return n, err
}

// Write implements net.Conn.
func (w *wire) Write(p []byte) (int, error) {
	w.out.scan(p)
	n, err := w.Conn.Write(p)
	if err != nil {
		w.end(err)
	}
	return n, err
}

// SetWriteDeadline implements net.Conn. The library's own are meant for patient people.
func (w *wire) SetWriteDeadline(t time.Time) error {
	if latest := time.Now().Add(writeTimeout); t.IsZero() || t.After(latest) {
		t = latest
	}
	return w.Conn.SetWriteDeadline(t)
}

// Close implements net.Conn.
func (w *wire) Close() error {
	w.end(errHungUp)
	return w.Conn.Close()
}

// end notes the first reason.
func (w *wire) end(err error) {
	if w.ended.CompareAndSwap(nil, &err) {
		w.lost <- err
	}
}

// failure is why the connection has ended, if it has.
func (w *wire) failure() error {
	if err := w.ended.Load(); err != nil {
		return *err
	}
	return nil
}

// silentSince reports whether nothing has come since then.
func (w *wire) silentSince(t time.Time) bool { return w.heard.Load() < t.UnixNano() }

// performDetach is the code of the performative by which a link ends.
const performDetach = 0x16

// frameScanner finds the detaches in a stream of frames, however it is cut.
type frameScanner struct {
	head   [headSize]byte
	n      int    // bytes of head that have come
	skip   uint32 // bytes of the current frame still to come
	detach func()
}

// headSize is a frame's header without extensions (8 bytes), and the descriptor of its
// performative: 0x00, the type of a small number (0x53), and the code.
const headSize = 11

func (f *frameScanner) scan(p []byte) {
	for len(p) > 0 {
		if f.skip > 0 {
			n := min(uint32(min(len(p), 1<<30)), f.skip) //nolint:gosec // it is bounded
			f.skip -= n
			p = p[n:]
			continue
		}
		f.head[f.n] = p[0]
		f.n++
		p = p[1:]
		f.look()
	}
}

// look decides what to do with as much of the head as there is.
func (f *frameScanner) look() {
	if f.n < 8 {
		return
	}
	size := uint32(f.head[0])<<24 | uint32(f.head[1])<<16 | uint32(f.head[2])<<8 | uint32(f.head[3])
	switch {
	case string(f.head[:4]) == "AMQP": // a protocol header, which is no frame
		f.n = 0
	case size < headSize: // a heartbeat
		f.n, f.skip = 0, max(size, 8)-8
	case f.n == headSize:
		if f.head[4] == 2 && f.head[5] == 0 && f.head[9] == 0x53 && f.head[10] == performDetach {
			f.detach()
		}
		f.n, f.skip = 0, size-headSize
	}
}

var _ net.Conn = (*wire)(nil)
