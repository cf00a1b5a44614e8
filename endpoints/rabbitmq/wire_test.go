package rabbitmq

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"
)

// What was not given to the network before the connection broke certainly did not arrive.
// What was may have, however the write ended.
func TestWire(t *testing.T) {
	ours, theirs := net.Pipe()
	w := newWire(ours, ours)
	first := w.mark()
	if _, err := w.Write([]byte("one")); err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if !w.passed(first) {
		t.Error("what arrived did not leave")
	}
	// Nobody reads this one, so what comes behind it waits.
	if _, err := w.Write([]byte("two")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is being written", func() bool { return w.leaving.Load() == 6 })
	second := w.mark()
	if _, err := w.Write(make([]byte, maxQueued)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.admit(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("there is no room, and admit returned %v", err)
	}
	if w.passed(second) {
		t.Error("what waits has left")
	}
	began := time.Now()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("closing took %v", took)
	}
	if w.passed(second) {
		t.Error("what was waiting has left")
	}
	if _, err := w.Write([]byte("three")); err == nil {
		t.Error("a closed connection takes more")
	}
	if err := w.admit(t.Context(), nil); err == nil {
		t.Error("a closed connection has room")
	}
}
