package rabbitmq

import (
	"context"
)

// Stop takes no more messages from the broker, and gives back what was not received. What
// was received can still be settled.
func (r *reader) Stop(ctx context.Context) error {
	r.mu.Lock()
	s := r.cur
	already := r.stopped || r.err != nil
	r.stopped = true
	r.mu.Unlock()
	signal(r.wake)
	if already || s == nil {
		return nil
	}
	err := s.call(ctx, func() error {
		r.mu.Lock()
		tag := s.tag
		r.mu.Unlock()
		return s.ch.Cancel(tag, false)
	})
	if err != nil {
		if s.ch.IsClosed() {
			return nil // the broker has it all back
		}
		return fault("stopping to read", err)
	}
	select {
	case <-r.done: // what had come is in ready now
	case <-ctx.Done():
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.ready {
		if err := s.ch.Nack(r.ready[i].DeliveryTag, false, true); err != nil {
			break // the channel is gone, and the broker has it all back
		}
	}
	r.ready, r.gap, r.gapAt = nil, nil, 0
	return nil
}

// Close implements message.Stream. The broker takes back what is not settled when the
// channel is closed.
func (r *reader) Close(ctx context.Context) error {
	var err error
	r.once.Do(func() { err = r.close(ctx) })
	return err
}

func (r *reader) close(ctx context.Context) error {
	r.mu.Lock()
	if r.err == nil {
		r.err = errClosed
	}
	defer r.release()
	s := r.cur
	r.cur, r.ready = nil, nil
	r.mu.Unlock()
	r.cancel()
	signal(r.wake)
	if s != nil {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := s.call(ctx, s.ch.Close); err != nil && !s.ch.IsClosed() {
			return fault("closing a channel", err)
		}
	}
	select {
	case <-r.done:
	case <-ctx.Done():
	}
	return nil
}
