package webhooks

import (
	"fmt"
	"time"
)

// fault breaks something, and returns when everything goes on.
type fault struct {
	name string
	do   func(*course, *flow)
}

// The faults.
var (
	kill        = fault{"kill -9 of the owner", (*course).killOwner}
	handOver    = fault{"end of the owner", (*course).endOwner}
	reload      = fault{"reload with an unrelated change", (*course).reloadUnrelated}
	change      = fault{"reload with another consumer", (*course).changeConsumer}
	killBroker  = fault{"kill -9 of the broker", func(c *course, _ *flow) { c.broker.Kill(); c.broker.Restart() }}
	killBoth    = fault{"kill -9 of the owner and of the broker", (*course).killBoth}
	closeBroker = fault{"end of the broker", func(c *course, _ *flow) { c.broker.Stop(); c.broker.Restart() }}
)

// schedule is what breaks: in short two kills and one restart of the broker, or ten and two.
func schedule() []fault {
	if !soak {
		return []fault{kill, change, handOver, killBoth, reload}
	}
	var list []fault
	for i := range 10 {
		list = append(list, kill)
		switch {
		case i == 2:
			list = append(list, killBroker)
		case i == 6:
			list = append(list, closeBroker)
		case i%3 == 0:
			list = append(list, handOver, reload)
		default:
			list = append(list, change)
		}
	}
	return list
}

// killOwner kills the owner, and starts it again: at once, or when the other has taken over.
func (c *course) killOwner(f *flow) {
	owner := c.owner(f)
	killed := time.Now()
	owner.Kill()
	c.kills++
	if c.kills%2 == 0 {
		owner.Restart()
	}
	c.awaitOwnerAfter(f, killed)
	if c.kills%2 == 1 {
		owner.Restart()
	}
}

// killBoth kills the owner with the broker, which comes back while the other node waits whether the
// owner does.
func (c *course) killBoth(f *flow) {
	owner := c.owner(f)
	killed := time.Now()
	c.broker.Kill()
	owner.Kill()
	c.kills++
	c.broker.Restart()
	c.owner(f)
	c.await(patience, f.name+": to go on with another owner", func() bool { return f.comes(killed) })
	owner.Restart()
}

// endOwner ends the owner in order, and starts it again when the other has taken over.
func (c *course) endOwner(f *flow) {
	owner := c.owner(f)
	took := owner.Terminate(20 * time.Second)
	ended := time.Now()
	c.awaitOwnerAfter(f, ended)
	late := c.taken[len(c.taken)-1]
	c.Logf("%s ended within %s, and %s took over %s later", owner.name, took.Round(time.Millisecond), c.other(owner).name, late.Round(time.Millisecond))
	if late > 2*lease { // at once, if the other is the next in turn; else when that is known to be gone
		c.Errorf("what %s gave up in order was taken over only after %s", owner.name, late)
	}
	owner.Restart()
}

// awaitOwnerAfter waits until the flow has another owner, notes how long that took, and then until it
// goes on: a broker may wait for who has been killed before it lets another one read.
func (c *course) awaitOwnerAfter(f *flow, when time.Time) {
	c.Helper()
	c.owner(f)
	c.taken = append(c.taken, time.Since(when))
	c.await(patience, f.name+": to go on with another owner", func() bool { return f.comes(when) })
}

// comes says that requests have come since, but for what was on its way then.
func (f *flow) comes(since time.Time) bool {
	return f.over() || f.books.Came().After(since.Add(100*time.Millisecond))
}

// load has both nodes take the site as it is now.
func (c *course) load() {
	for _, n := range c.nodes {
		n.Reload(globals, c.site())
	}
}

func (c *course) reloadUnrelated(*flow) {
	c.unrelated++
	c.load()
}

// changeConsumer gives the flow another revision, and waits until it arrives.
func (c *course) changeConsumer(f *flow) {
	f.revision++
	if c.change != nil && f.subscription != f.api+".audit" {
		c.change(c, f)
	} else {
		c.load()
	}
	want := fmt.Sprint(f.revision)
	c.await(takeOver, f.name+": revision "+want, func() bool { return f.over() || f.receiver.Revision() == want })
}
