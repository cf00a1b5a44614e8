package smftest

// create makes a durable queue.
func (c *conn) create(m control, reply replier) error {
	fault, err := c.fault(OpCreate, m.queue)
	if err != nil || fault.Silent {
		return err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	answer := fault.status()
	switch {
	case !answer.ok():
	case c.s.options.NoProvisioning:
		answer = status{403, "Permission Not Allowed"}
	case c.s.queues[m.queue] != nil:
		answer = status{400, "Already Exists"}
	default:
		c.s.newQueue(m.queue, Queue{
			NonExclusive: m.access == nonExclusive, RespectTTL: m.respectTTL,
			MaxRedeliveries: m.redeliveries, MaxUnacked: m.unacked,
		})
	}
	return c.answer(fault, reply(answer, m.echo()))
}

// remove deletes a queue.
func (c *conn) remove(m control, reply replier) error {
	fault, err := c.fault(OpCreate, m.queue)
	if err != nil || fault.Silent {
		return err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	answer, q := fault.status(), c.s.queues[m.queue]
	switch {
	case !answer.ok():
	case c.s.options.NoProvisioning:
		answer = status{403, "Permission Not Allowed"}
	case q == nil:
		answer = status{503, "Unknown Queue"}
	default:
		c.s.dropQueue(q)
	}
	return c.answer(fault, reply(answer, m.echo()))
}
