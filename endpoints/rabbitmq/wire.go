package rabbitmq

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// writeLimit is how long one write to the network may take: a peer that takes nothing
	// for so long is gone.
	writeLimit = 3 * time.Second
	// writeChunk is how much is written at once, so that a slow peer is told from one that
	// stands still.
	writeChunk = 64 << 10
	// maxQueued is how many bytes wait to be written before publishing waits.
	maxQueued = 1 << 20
	// farewell is how long a connection that ends has for its last words.
	farewell = 200 * time.Millisecond
)

var errWriteStalled = errors.New("the broker takes nothing: a write did not end in time")

// wire is a network connection on which nobody waits for a write. The library writes
// under locks that everybody needs, with one write per message, and without regard to any
// deadline. Here a write is a copy; one goroutine writes what has come together
// in the meantime, in one go and with a deadline, and a failure closes the connection.
type wire struct {
	net.Conn
	raw     net.Conn      // below any encryption, whose own way to close takes its time
	bell    chan struct{} // something is to be written, or the end has come
	done    chan struct{} // the writer has ended
	leaving atomic.Int64  // bytes that the network was given, or is just being given

	mu     sync.Mutex
	buf    []byte
	queued int64         // bytes, ever
	room   chan struct{} // closed when there is room again; nil while there is
	err    error
}

func newWire(conn, raw net.Conn) *wire {
	w := &wire{Conn: conn, raw: raw, bell: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write copies p, unless the connection is known to be of no use.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	w.buf = append(w.buf, p...)
	w.queued += int64(len(p))
	if len(w.buf) >= maxQueued && w.room == nil {
		w.room = make(chan struct{})
	}
	signal(w.bell)
	return len(p), nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// admit waits until there is room for more. Writing itself never waits, so that the locks
// of the library are never held for long.
func (w *wire) admit(ctx context.Context, late <-chan struct{}) error {
	for {
		w.mu.Lock()
		room, err := w.room, w.err
		w.mu.Unlock()
		if room == nil || err != nil {
			return err
		}
		select {
		case <-room:
		case <-w.done:
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return context.DeadlineExceeded
		}
	}
}

// mark is a place in what is written: what is written from now on comes after it.
func (w *wire) mark() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queued
}

// passed reports whether anything behind a mark may have left this process.
func (w *wire) passed(mark int64) bool { return w.leaving.Load() > mark }

func (w *wire) run() {
	defer close(w.done)
	var out []byte
	for {
		<-w.bell
		for {
			w.mu.Lock()
			out, w.buf = w.buf, out[:0]
			err := w.err
			if cap(w.buf) > maxQueued {
				w.buf = nil // once was enough
			}
			w.mu.Unlock()
			if len(out) > 0 && (err == nil || errors.Is(err, net.ErrClosed)) {
				err = w.write(out, err)
			}
			if err != nil {
				w.end(err)
				return
			}
			if len(out) == 0 {
				break
			}
			w.makeRoom()
		}
	}
}

// write writes it all. closing says that these are the last words.
func (w *wire) write(out []byte, closing error) error {
	limit := writeLimit
	if closing != nil {
		limit = farewell
	}
	for len(out) > 0 {
		if err := w.Conn.SetWriteDeadline(time.Now().Add(limit)); err != nil {
			return err
		}
		chunk := out[:min(len(out), writeChunk)]
		// Before it is written: the answer may be quicker than we are.
		w.leaving.Add(int64(len(chunk)))
		n, err := w.Conn.Write(chunk)
		if err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				return errWriteStalled
			}
			return err
		}
		out = out[n:]
	}
	return closing
}

func (w *wire) makeRoom() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.room != nil && len(w.buf) < maxQueued {
		close(w.room)
		w.room = nil
	}
}

// end closes the connection, which ends the reading side too.
func (w *wire) end(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.mu.Unlock()
	if errors.Is(err, net.ErrClosed) {
		_ = w.Conn.Close() // encrypted ones say good-bye
	}
	_ = w.raw.Close() // it is of no use any more
}

// failure is why the connection can't be written to, if so.
func (w *wire) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(w.err, net.ErrClosed) {
		return nil
	}
	return w.err
}

// Close writes what is still to be written, within a moment, and closes the connection.
func (w *wire) Close() error {
	w.mu.Lock()
	if w.err == nil {
		w.err = net.ErrClosed
	}
	w.mu.Unlock()
	signal(w.bell)
	timer := time.NewTimer(2 * farewell)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C: // it is in the middle of a write that stands still
		_ = w.raw.Close()
		<-w.done
	}
	return nil
}

// SetDeadline sets the deadline for reading. That for writing is the wire's own.
func (w *wire) SetDeadline(t time.Time) error { return w.Conn.SetReadDeadline(t) }

// SetWriteDeadline does nothing: see SetDeadline.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

var _ net.Conn = (*wire)(nil)
