package endpointtest

import (
	"slices"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// positioned is a subscription that continues at a position, which went through its
// printable form on the way, as it does when a client holds it.
func (s *subject) positioned(at message.Position) message.Subscription {
	s.Helper()
	parsed, err := message.ParseCursor(at.Cursor())
	if err != nil {
		s.Fatalf("position %+v makes a cursor that can't be read: %v", at, err)
	}
	sub := s.usual("")
	sub.QoS = message.AtLeastOnce
	sub.Position = &parsed
	return sub
}

// resume: reading continues exactly after what was read, wherever it was cut, and also
// at another process. Nothing is lost and nothing is repeated.
func resume(s *subject) {
	const n = 200
	start := s.open(s.usual("")).position
	want := s.feed(n)
	at, here, there := start, s.Endpoint, s.another()
	var all []message.Delivery
	for len(all) < n {
		r := s.openOn(here, s.positioned(at))
		all = append(all, r.take(min(1+s.rng.IntN(20), n-len(all)))...)
		at = r.position
		if now := r.stream.(message.Positioned).Position(); !now.Covers(&at) || now.Origin != at.Origin {
			s.Errorf("after reading to %+v the stream is at %+v", at, now)
		}
		r.close()
		here, there = there, here
	}
	s.exactly(all, want)
	s.inOrder(all)
}

// resumeUnread: a stream knows where it began before anything was received, so that one
// who is cut at once misses nothing.
func resumeUnread(s *subject) {
	s.feed(3)
	r := s.open(s.usual(""))
	at := r.position
	if len(at.Marks) == 0 {
		s.Error("the position of a fresh stream has no marks: reading from it would begin at the start of everything")
	}
	r.close()
	want := s.feed(5)
	s.exactly(s.open(s.positioned(at)).take(5), want)
}

// resumeAbsent: a partition that the position does not know is newer than it, and is read
// from its start. The others go on where they were.
func resumeAbsent(s *subject) {
	r := s.open(s.usual(""))
	s.feed(40)
	all := r.take(40)
	gone := all[0].Mark
	at := r.position.Clone()
	at.Marks = slices.DeleteFunc(at.Marks, func(m message.Mark) bool {
		return m.Channel == gone.Channel && m.Partition == gone.Partition
	})
	var want []int
	for _, d := range all {
		if d.Mark.Channel == gone.Channel && d.Mark.Partition == gone.Partition {
			want = append(want, s.number(d.Message))
		}
	}
	r = s.open(s.positioned(at))
	got := s.numbers(r.take(len(want)))
	if !slices.Equal(got, want) {
		s.Errorf("the absent partition was read as %v, want %v", got, want)
	}
	if !s.Generates {
		r.silent("it was read before, or does not exist")
	}
}

// resumeForeign: a position that belongs to something else is not taken for ours. The
// client is told before the first message, and reading goes on.
func resumeForeign(s *subject) {
	r := s.open(s.usual(""))
	s.feed(3)
	r.take(3)
	at := r.position.Clone()
	at.Origin++
	r = s.open(s.positioned(at))
	want := s.feed(1)
	s.goesOn(r, want, message.GapForeign)
}

// resumeExpired: when the broker no longer has what comes after the position, the client
// is told, and reading goes on with what there is.
func resumeExpired(s *subject) {
	r := s.open(s.usual(""))
	s.feed(20)
	r.take(5)
	at := r.position
	s.Truncate(s.T)
	want := s.feed(5)
	s.goesOn(s.open(s.positioned(at)), want, message.GapExpired)
}

// resumeRecreated: a channel that was made anew is told from the one that the position
// was made for.
func resumeRecreated(s *subject) {
	r := s.open(s.usual(""))
	s.feed(20)
	r.take(20)
	at := r.position
	r.close()
	s.Recreate(s.T)
	want := s.feed(5)
	s.goesOn(s.open(s.positioned(at)), want, message.GapRecreated, message.GapExpired)
}

// goesOn checks that a gap with one of the reasons comes before the first message, and
// then the wanted messages.
func (s *subject) goesOn(r *reader, want []int, reasons ...message.GapReason) {
	s.Helper()
	missing := make(map[int]bool)
	for _, n := range want {
		missing[n] = true
	}
	for first := true; first || len(missing) > 0; first = false {
		for _, n := range s.numbers(r.take(1)) {
			delete(missing, n)
		}
		if first && (len(r.gaps) == 0 || !slices.Contains(reasons, r.gaps[0].Reason)) {
			s.Errorf("gaps before the first message: %+v, want one of %v", r.gaps, reasons)
		}
	}
}

// from: reading begins at the start, at the end, or at a time.
func from(s *subject) {
	want := s.feed(5)
	time.Sleep(20 * time.Millisecond) // so that the clock stands between the two halves
	want = append(want, s.feed(5)...)
	beginning := func(start message.Start) message.Subscription {
		sub := s.usual("")
		sub.From = start
		return sub
	}
	all := s.open(beginning(message.Start{Kind: message.StartEarliest})).take(10)
	s.exactly(all, want)

	i := slices.IndexFunc(all, func(d message.Delivery) bool { return s.number(d.Message) == want[5] })
	half := all[i].Time
	if half.IsZero() {
		s.Fatal("an endpoint with positions must know the time of its messages")
	}
	var later []int
	for _, d := range all {
		if !d.Time.Before(half) {
			later = append(later, s.number(d.Message))
		}
	}
	r := s.open(beginning(message.Start{Kind: message.StartTime, Time: half}))
	s.exactly(r.take(len(later)), later)
	r.silent("it is older than the time to begin at")

	r = s.open(beginning(message.Start{Kind: message.StartLatest}))
	want = s.feed(3)
	s.exactly(append(r.take(3), r.rest()...), want)
}

// bookmark: a position that is stored for a name is where the name begins next time, at
// any process. It never goes backwards, and a position of one's own comes first.
func bookmark(s *subject) {
	sub := s.usual("")
	sub.QoS, sub.Name = message.AtLeastOnce, s.name("reader")
	r := s.open(sub)
	want := s.feed(10)
	first := r.take(4)
	early := r.position.Clone()
	r.bookmark(early)
	r.close()

	r = s.openOn(s.another(), sub)
	second := r.take(6)
	s.exactly(append(first, second...), want)
	r.bookmark(r.position)
	r.bookmark(early)
	r.close()

	r = s.open(sub)
	want = s.feed(2)
	third := r.take(2)
	s.none(third, append(first, second...), "it lies before the bookmark")
	if !s.Generates {
		s.exactly(third, want)
	}
	r.close()

	sub.Position = &early
	s.exactly(s.open(sub).take(8), s.numbers(append(second, third...)))
}
