package servicebus

import (
	"context"
)

// Probe implements endpoints.Prober: the service lets us in, and the queues, topics and
// subscriptions that are known without a request are there and for us. Whether there are
// sessions is not asked: that would take one from somebody.
func (s *ServiceBus) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience) // see defaultSetup
	defer cancel()
	if s.producer != nil {
		if err := s.producer.probe(ctx, s.fixed); err != nil {
			return err
		}
	}
	if s.consumer == nil {
		return nil
	}
	return s.consumer.probe(ctx, s.spec)
}

func (p *producer) probe(ctx context.Context, fixed *publisher) error {
	if fixed == nil {
		_, err := living(ctx, p.link)
		return err
	}
	o := p.outlet(&fixed.props)
	sender, err := o.open(ctx)
	if err == nil {
		o.release(sender, false)
	}
	return err
}

func (c *consumer) probe(ctx context.Context, at *spec) error {
	conn, err := living(ctx, c.first())
	if err != nil || at == nil || c.sessions > 0 {
		return err
	}
	s := &stream{c: c, at: at, link: c.first()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	defer s.cancel()
	src, err := s.attach(ctx, conn)
	if err == nil {
		s.lose(src)
	}
	s.wg.Wait()
	return err
}
