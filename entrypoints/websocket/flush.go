package websocket

import (
	"errors"
	"sync"
	"time"
)

// chunkSize is how much goes to the connection in one call: small frames are copied
// together up to it, because a system call costs more than the copy. It also bounds how
// long a pong or a goodbye waits behind a long burst.
const chunkSize = 64 << 10

var chunks = sync.Pool{New: func() any { b := make([]byte, 0, chunkSize); return &b }}

// errInterrupted stops a burst when the session is to end.
var errInterrupted = errors.New("the session ends")

// flush writes own and then the frames.
func (s *session) flush(frames [][]byte) error {
	if len(frames) == 0 || len(s.own)+len(frames[0]) > chunkSize {
		if err := s.send(s.own); err != nil {
			return err
		}
		s.forgetOwn()
	}
	if len(frames) == 1 && len(s.own) == 0 {
		return s.send(frames[0])
	}
	if len(frames) == 0 {
		return nil
	}
	chunk := chunks.Get().(*[]byte)
	defer chunks.Put(chunk)
	buf := append((*chunk)[:0], s.own...)
	s.forgetOwn()
	for _, frame := range frames {
		if len(buf) > 0 && len(buf)+len(frame) > chunkSize {
			if err := s.send(buf); err != nil {
				return err
			}
			if s.between() {
				return errInterrupted
			}
			buf = append(buf[:0], s.own...)
			s.forgetOwn()
		}
		if len(frame) >= chunkSize {
			if err := s.sendBoth(&buf, frame); err != nil {
				return err
			}
			continue
		}
		buf = append(buf, frame...)
	}
	return s.send(buf)
}

// sendBoth writes buf, which it empties, and a frame that is too large to be copied.
func (s *session) sendBoth(buf *[]byte, frame []byte) error {
	if err := s.send(*buf); err != nil {
		return err
	}
	*buf = (*buf)[:0]
	return s.send(frame)
}

// between looks, between two writes of a long burst, whether there is something urgent.
func (s *session) between() (stop bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeFrames()
	s.room.Broadcast()
	return s.ending != nil
}

// forgetOwn empties own, and lets go of a buffer that was needed only once.
func (s *session) forgetOwn() {
	if cap(s.own) > maxIdleFrames {
		s.own = nil
		return
	}
	s.own = s.own[:0]
}

// send writes p, which may be empty. A long frame is cut, so that the deadline means
// "nothing moved" and a slow line with a large message is not taken for a stall.
func (s *session) send(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), chunkSize)
		s.arm()
		if _, err := s.wire.Conn.Write(p[:n]); err != nil {
			s.broken = true
			return err
		}
		p = p[n:]
	}
	return nil
}

// arm sees to it that a write has at least three quarters of its time. Setting a deadline
// costs a lock and a timer in the runtime, so it is not done for each write.
func (s *session) arm() {
	now := time.Now()
	if s.deadline.Sub(now) > s.e.limits.write*3/4 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending != nil { // end has shortened it, and it stays short
		return
	}
	s.deadline = now.Add(s.e.limits.write)
	_ = s.wire.Conn.SetWriteDeadline(s.deadline) // fails on a closed connection only, as the write will
}
