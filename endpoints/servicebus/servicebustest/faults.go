package servicebustest

import "time"

// lane keeps the operations of a link in order while a fault delays one of them. Other links don't wait.
type lane struct {
	busy    bool
	waiting []func()
}

// perform asks for a fault and does an operation with it, after those that are before it in the lane.
func (s *Server) perform(l *lane, op Op, entity string, do func(*Fault)) {
	if l.busy {
		l.waiting = append(l.waiting, func() { s.start(l, op, entity, do) })
		return
	}
	s.start(l, op, entity, do)
}

func (s *Server) start(l *lane, op Op, entity string, do func(*Fault)) {
	f := s.ask(op, entity)
	if f == nil || f.Delay <= 0 {
		do(f)
		return
	}
	l.busy = true
	s.after(f.Delay, func() {
		l.busy = false
		do(f)
		for len(l.waiting) > 0 && !l.busy {
			next := l.waiting[0]
			l.waiting = l.waiting[1:]
			next()
		}
	})
}

// ask is the fault that befalls an operation; nil: none.
func (s *Server) ask(op Op, entity string) *Fault {
	if s.fault == nil {
		return nil
	}
	return s.fault(op, entity)
}

// after does something later, unless the server is closed by then.
func (s *Server) after(d time.Duration, do func()) *time.Timer {
	return time.AfterFunc(d, func() { s.locked(do) })
}

func (f *Fault) silent() bool { return f != nil && f.Silent }

// drops cuts the connection if the fault is that.
func (f *Fault) drops(c *conn) bool {
	if f == nil || !f.Drop {
		return false
	}
	c.sever()
	return true
}

func (f *Fault) asError() *wireError { return &wireError{f.Condition, f.Description} }
