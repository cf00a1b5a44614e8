package worker

import (
	"fmt"

	"go.uber.org/zap"
)

// receive is the goroutine that takes what the stream has, as far as there is room for it.
func (e *engine) receive() {
	for e.awaitRoom() {
		batch, err := e.opt.Stream.Receive(e.read)
		if err != nil {
			if e.read.Err() == nil {
				e.mu.Lock()
				e.end(fmt.Errorf("reading: %w", err))
				e.mu.Unlock()
			}
			return
		}
		if batch.Gap != nil {
			e.opt.Logger.Warn("messages may have been missed", zap.String("reason", string(batch.Gap.Reason)),
				zap.String("detail", batch.Gap.Detail))
		}
		e.add(&batch)
	}
}

// awaitRoom waits until more can be received. It reports false when nothing is to be.
func (e *engine) awaitRoom() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.within(e.room()) && !e.retrying() {
		return !e.draining
	}
	for !e.draining && !e.mayReceive() {
		e.blocked = true
		e.roomy.Wait()
	}
	e.blocked = false
	return !e.draining
}

// room is what may be here. The window bounds it where the stream does not do that by
// itself. Where it does, there is room for twice as much: a broker that was away delivers
// again what is still here, and only that tells that it is stale.
func (e *engine) room() (messages, bytes int) {
	messages, bytes = e.opt.Window.Messages, e.opt.Window.Bytes
	if e.tracked {
		return 2 * messages, 2 * bytes
	}
	return messages, bytes
}

func (e *engine) within(messages, bytes int) bool { return e.here < messages && e.bytes < bytes }

// mayReceive says that there is room for a batch that is worth the call.
func (e *engine) mayReceive() bool {
	messages, bytes := e.room()
	return e.within(messages*3/4+1, bytes*3/4+1) && !e.retrying()
}

// retrying says that all there is has to wait for a message that failed: more would only
// grow old here.
func (e *engine) retrying() bool {
	return e.single != nil && e.single.head != nil && e.single.head.trial != nil
}
