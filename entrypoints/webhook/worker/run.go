// Package worker delivers the messages of one subscription: it reads a stream, keeps
// order, tries again what failed, and settles what was delivered. How a message is sent,
// and where dead ones go, is told to it.
package worker

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// closeTimeout bounds each of stopping and closing the stream.
const closeTimeout = 5 * time.Second

// Run works until ctx is done or it can't go on, and then ends what it has begun, settles
// it, gives back the rest, and closes the stream. It returns nil when ctx has ended, an
// *entrypoints.Failure when it has to stop until somebody has it retried, and any other
// error when the stream has ended, so that a new one is needed. When the cause of ctx is
// entrypoints.ErrFenced it cuts what is under way and settles nothing.
func Run(ctx context.Context, opt Options) error {
	opt.defaults()
	e := newEngine(ctx, opt)
	e.start()
	select {
	case <-ctx.Done():
	case <-e.ending:
	}
	return e.finish()
}

func (e *engine) start() {
	e.crew.Go(e.receive)
	e.settler.Go(e.settleAll)
	e.keeper.Go(e.keepTime)
}

// fenced says that another node may be working already.
func (e *engine) fenced() bool {
	return e.outer.Err() != nil && errors.Is(context.Cause(e.outer), entrypoints.ErrFenced)
}

// end has the worker end because of err. e.mu is held.
func (e *engine) end(err error) {
	if e.err == nil {
		e.err = err
		close(e.ending)
	}
	e.drain()
}

// drain has nothing begun any more. e.mu is held.
func (e *engine) drain() {
	if e.draining {
		return
	}
	e.draining = true
	e.stopped.Store(true)
	e.stopRead()
	e.idle, e.blocked = 0, false
	e.work.Broadcast()
	e.roomy.Broadcast()
}

// finish ends everything, in order.
func (e *engine) finish() error {
	defer e.cutSend()
	defer e.stopSettling()
	e.mu.Lock()
	e.drain()
	e.mu.Unlock()
	letGo := func() {
		if e.fenced() {
			e.cutSend()
			e.stopSettling()
		}
	}
	stop := context.AfterFunc(e.outer, letGo) // it may come to that while we drain
	defer stop()
	letGo()
	cut := time.AfterFunc(e.opt.DrainTimeout, e.cutSend)
	e.crew.Wait()
	cut.Stop()
	e.letAllGo()
	e.settler.Wait()
	close(e.quit)
	e.keeper.Wait()
	if !e.fenced() {
		e.mu.Lock()
		last := e.snapshot()
		e.mu.Unlock()
		e.opt.Keep(last)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.outer), closeTimeout)
	defer cancel()
	if err := e.opt.Stream.Close(ctx); err != nil {
		e.opt.Logger.Warn("closing the stream", zap.Error(err))
	}
	if e.failure != nil {
		return e.failure
	}
	if e.outer.Err() != nil {
		return nil
	}
	return e.err
}

// letAllGo forgets what was received and not sent, and ends the settler, which settles the
// rest before. Nobody receives or sends any more. The broker takes all of it back when the stream is
// closed, and then in its order, which it does not where it is given back piece by piece.
func (e *engine) letAllGo() {
	e.mu.Lock()
	defer e.mu.Unlock()
	var rest []*item
	for _, l := range e.parked.lanes {
		rest = e.empty(l, rest)
	}
	for l := e.ready.pop(); l != nil; l = e.ready.pop() {
		rest = e.empty(l, rest)
	}
	for _, it := range rest {
		if it.trial != nil {
			e.lost(it.trial)
		}
		e.free(it)
	}
	e.settle.closing = true
	e.settle.idle = false
	e.settle.due.Signal()
}

func (e *engine) empty(l *lane, into []*item) []*item {
	for l.head != nil {
		into = append(into, e.remove(l))
	}
	return into
}
