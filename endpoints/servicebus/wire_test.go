package servicebus

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// frame is a performative of a code, with a body of some size.
func frame(code byte, body int) []byte {
	size := headSize + body
	f := []byte{0, 0, byte(size >> 8), byte(size), 2, 0, 0, 0, 0, 0x53, code}
	return append(f, make([]byte, body)...)
}

// Detaches are found however the stream is cut, among headers, heartbeats and other frames.
func TestDetachesAreFound(t *testing.T) {
	var stream []byte
	stream = append(stream, "AMQP\x03\x01\x00\x00AMQP\x00\x01\x00\x00"...)
	for _, f := range [][]byte{
		frame(0x10, 50), frame(performDetach, 0), {0, 0, 0, 8, 2, 0, 0, 0}, frame(0x14, 300), frame(performDetach, 20),
		{0, 0, 0, 8, 2, 0, 0, 0}, frame(0x17, 0), frame(performDetach, 1),
	} {
		stream = append(stream, f...)
	}
	sasl := frame(performDetach, 5)
	sasl[5] = 1 // of another layer
	stream = append(stream, sasl...)
	for _, cut := range []int{1, 2, 3, 7, 8, 11, 64, len(stream)} {
		found := 0
		f := frameScanner{detach: func() { found++ }}
		for rest := stream; len(rest) > 0; {
			n := min(cut, len(rest))
			f.scan(rest[:n])
			rest = rest[n:]
		}
		if found != 3 {
			t.Errorf("cut into %d bytes: %d detaches", cut, found)
		}
	}
}

func FuzzFrameScanner(f *testing.F) {
	f.Add(frame(performDetach, 3), 2)
	f.Add([]byte("AMQP\x00\x01\x00\x00"), 1)
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		count := func(cut int) (found int) {
			s := frameScanner{detach: func() { found++ }}
			for rest := stream; len(rest) > 0; {
				n := min(cut, len(rest))
				s.scan(rest[:n])
				rest = rest[n:]
			}
			return found
		}
		if cut < 1 {
			cut = 1
		}
		if whole, parts := count(len(stream)), count(cut); whole != parts {
			t.Errorf("%d detaches in one piece, and %d in pieces of %d", whole, parts, cut)
		}
	})
}

// Only detaches that the service began count: answers to ours do not.
func TestWhoDetached(t *testing.T) {
	w := newWire(nil)
	w.detachWent() // ours
	w.detachCame() // its answer
	if w.detaches() != 0 {
		t.Error("an answer was taken for a detach")
	}
	w.detachCame() // the service's
	w.detachWent() // our answer
	w.detachWent() // ours
	w.detachCame() // its answer
	if got := w.detaches(); got != 1 {
		t.Errorf("%d detaches, want 1", got)
	}
}

// The end of a connection is told once, with the first reason.
func TestTheEndOfAWire(t *testing.T) {
	ours, theirs := net.Pipe()
	w := newWire(ours)
	if w.failure() != nil || !w.silentSince(time.Now().Add(time.Second)) {
		t.Error("a new connection is dead, or has heard of the future")
	}
	go func() { _ = theirs.Close() }()
	if _, err := w.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read: %v", err)
	}
	_ = w.Close()
	if err := <-w.lost; !errors.Is(err, io.EOF) || !errors.Is(w.failure(), io.EOF) {
		t.Errorf("lost by %v, %v", err, w.failure())
	}
}

// A peer that takes no bytes holds up a writer for seconds, and not for as long as the
// library would wait.
func TestWriteDeadline(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	w := newWire(ours)
	defer w.Close()
	if err := w.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err == nil || w.failure() == nil {
		t.Errorf("wrote into nothing: %v", err)
	}
}
