package mqtt5

import (
	"errors"
	"maps"
	"time"
)

// To a server each connection is work of its own. So it may come to a CONNECT whose sender
// has given up long ago only after it has let the next one in, and then ends that one: the
// session was taken over, though by nobody but this process. Who believed that it is another
// process's would leave what is in it for ever.

// lateFor is how long after it was given up a CONNECT may still take its session over.
const lateFor = time.Minute

// place is a session, whoever has it.
type place struct {
	key  string // the group's
	slot int
}

// lateness is how many CONNECTs for a session were given up without an answer.
type lateness struct {
	connects int
	newest   time.Time
}

// gaveUp notes that a CONNECT may come late, if that is what err says. The note outlives the
// stream, and the group: whoever has the session next is the one that is hit.
func (r *registry) gaveUp(key string, slot int, err error) {
	if !errors.Is(err, errUnanswered) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	at := place{key, slot}
	r.late[at] = lateness{connects: r.late[at].connects + 1, newest: time.Now()}
}

// wasLate reports whether a session may have been taken over by a CONNECT of ours that came
// late. Each can do so once: if it was another process after all, it has the session now, and
// is believed the next time.
func (r *registry) wasLate(key string, slot int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := place{key, slot}
	l := r.late[at]
	delete(r.late, at)
	if l.connects == 0 || time.Since(l.newest) > lateFor {
		return false
	}
	if l.connects--; l.connects > 0 {
		r.late[at] = l
	}
	return true
}

// forgetLate drops what can't come any more. r.mu is held.
func (r *registry) forgetLate() {
	maps.DeleteFunc(r.late, func(_ place, l lateness) bool { return time.Since(l.newest) > lateFor })
}
