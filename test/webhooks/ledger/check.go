package ledger

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Rules are what is promised.
type Rules struct {
	// Subscription and API are the ids that dead letters must bear.
	Subscription, API string
	// Ordered says that messages of one key come in their order.
	Ordered bool
	// Attempts is how often a message is tried before it is dead, and Most how often it may be
	// because somebody was interrupted. 0: the same.
	Attempts, Most int
	// Position checks the original position of a dead letter. Nil: any.
	Position func(m Message, position string) error
	// Kept are headers that every message was produced with, with the value of that message.
	Kept map[string]func(m Message) string
}

// Sums are the counts of a run.
type Sums struct {
	Produced int
	// Attempts are the requests that came, Taken the 2xx that were given, Repeated those
	// for messages that had been taken before.
	Attempts, Taken, Repeated int
	// Delivered were taken, Dead have a dead letter, Both have both. Letters are all dead
	// letters.
	Delivered, Dead, Both, Letters int
	// Poison and Stubborn are those of them that were to die; Spoilt died and were not.
	Poison, Stubborn, Spoilt int
	// Reasons counts dead messages by the reason of their first letter.
	Reasons map[string]int
	// Most is the highest number of an attempt.
	Most int
	// Lost was neither taken nor is it dead. Disordered came before what it follows was
	// taken. Wrong is everything else that is not as promised.
	Lost, Disordered, Wrong int
}

// Check compares the books with the rules. What is broken is told in words by Flaws.
func (l *Ledger) Check(rules Rules) Sums {
	l.mu.Lock()
	defer l.mu.Unlock()
	rules.Most = max(rules.Most, rules.Attempts)
	sums := Sums{Produced: l.produced, Reasons: make(map[string]int)}
	for n := range l.records {
		l.checkOne(&sums, &rules, l.plan[n], &l.records[n])
	}
	if rules.Ordered {
		l.checkOrder(&sums)
	}
	sums.Wrong = l.wrong - sums.Lost - sums.Disordered
	return sums
}

func (l *Ledger) checkOne(sums *Sums, rules *Rules, m Message, r *record) {
	sums.Attempts += r.attempts
	sums.Taken += r.given
	sums.Letters += len(r.letters)
	sums.Most = max(sums.Most, r.highest)
	if r.given > 0 {
		sums.Delivered++
		sums.Repeated += r.given - 1
	}
	if len(r.letters) > 0 {
		l.checkDead(sums, rules, m, r)
	}
	switch {
	case !r.produced:
		l.flaw("message %d was never produced", m.N)
	case r.given == 0 && len(r.letters) == 0:
		sums.Lost++
		l.flaw("message %d (%s %d) is lost after %d attempts", m.N, m.Key, m.Seq, r.attempts)
	case m.Fate != "" && r.given > 0:
		l.flaw("message %d was taken, although it is %s", m.N, m.Fate)
	}
	if r.highest > rules.Most {
		l.flaw("message %d was tried %d times, and %d are allowed", m.N, r.highest, rules.Most)
	}
}

func (l *Ledger) checkDead(sums *Sums, rules *Rules, m Message, r *record) {
	sums.Dead++
	switch m.Fate {
	case Poison:
		sums.Poison++
	case Stubborn:
		sums.Stubborn++
	default:
		sums.Spoilt++
	}
	if r.given > 0 {
		sums.Both++
	}
	sums.Reasons[r.letters[0].Headers["dead-letter-reason"]]++
	for i := range r.letters {
		for _, flaw := range rules.check(m, r, &r.letters[i]) {
			l.flaw("the dead letter of message %d (%s %d %s): %s", m.N, m.Key, m.Seq, m.Fate, flaw)
		}
	}
}

// check says what is wrong with the headers of a dead letter.
func (rules *Rules) check(m Message, r *record, letter *Letter) (flaws []string) {
	wrong := func(format string, args ...any) { flaws = append(flaws, fmt.Sprintf(format, args...)) }
	header := func(name string) string { return letter.Headers["dead-letter-"+name] }
	equal := func(name, want string) {
		if got := header(name); got != want {
			wrong("dead-letter-%s is %q and not %q", name, got, want)
		}
	}
	equal("subscription", rules.Subscription)
	equal("api", rules.API)
	if r.id != "" { // or it was never sent
		equal("id", r.id)
	}
	if died, err := time.Parse(time.RFC3339, header("time")); err != nil || time.Since(died).Abs() > time.Hour {
		wrong("dead-letter-time is %q: %v", header("time"), err)
	}
	attempts, err := strconv.Atoi(header("attempts"))
	if err != nil || attempts < 1 || attempts > rules.Most {
		wrong("dead-letter-attempts is %q, with %d allowed", header("attempts"), rules.Most)
	}
	reason := header("reason")
	why, outcome, _ := strings.Cut(reason, ":")
	late := why == "exhausted" || why == "held_too_long" || why == "window_full"
	switch m.Fate {
	case Poison:
		equal("reason", "client_error")
		equal("status", "400")
	case Stubborn:
		if !late || outcome != "server_error" {
			wrong("dead-letter-reason is %q", reason)
		}
		equal("status", "500")
	default:
		if !late {
			wrong("dead-letter-reason is %q", reason)
		}
	}
	if why == "exhausted" && attempts < rules.Attempts {
		wrong("it is %s after %d of %d attempts", reason, attempts, rules.Attempts)
	}
	if header("position") == "" {
		wrong("it has no dead-letter-position")
	} else if rules.Position != nil {
		if err := rules.Position(m, header("position")); err != nil {
			wrong("dead-letter-position is %q: %v", header("position"), err)
		}
	}
	for name, want := range rules.Kept {
		if got := letter.Headers[name]; got != want(m) {
			wrong("the header %s is %q and not %q", name, got, want(m))
		}
	}
	return flaws
}

// checkOrder compares each message with the one before it in its key: it must not have been
// sent before that was taken for the first time or, if that is dead, before that was sent for the
// first time. What comes again is not looked at.
func (l *Ledger) checkOrder(sums *Sums) {
	lanes := make(map[string][]int)
	for n, m := range l.plan {
		lanes[m.Key] = append(lanes[m.Key], n)
	}
	for _, lane := range lanes {
		slices.SortFunc(lane, func(a, b int) int { return l.plan[a].Seq - l.plan[b].Seq })
		for i := 1; i < len(lane); i++ {
			before, after := &l.records[lane[i-1]], &l.records[lane[i]]
			if after.tried == 0 || before.taken == 0 && len(before.letters) == 0 {
				continue // never sent, or what it follows is lost, which is told elsewhere
			}
			earliest := before.taken
			if len(before.letters) > 0 {
				earliest = before.tried
			}
			if after.tried < earliest {
				sums.Disordered++
				l.flaw("message %d (%s %d) was sent before message %d was done with: at %s, and that was first sent at %s", lane[i],
					l.plan[lane[i]].Key, l.plan[lane[i]].Seq, lane[i-1], clockTime(after.triedAt), clockTime(before.triedAt))
			}
		}
	}
}

func clockTime(t time.Time) string { return t.Format("15:04:05.000") }

// String is a table of the counts.
func (s Sums) String() string {
	reasons := make([]string, 0, len(s.Reasons))
	for reason, n := range s.Reasons {
		reasons = append(reasons, fmt.Sprintf("%s %d", reason, n))
	}
	slices.Sort(reasons)
	return fmt.Sprintf("messages %d, attempts %d, 2xx %d (repeated %d), delivered %d, dead %d (poison %d, stubborn %d, others %d; "+
		"delivered too %d), dead letters %d (%s), most attempts %d; lost %d, out of order %d, otherwise wrong %d",
		s.Produced, s.Attempts, s.Taken, s.Repeated, s.Delivered, s.Dead, s.Poison, s.Stubborn, s.Spoilt, s.Both,
		s.Letters, strings.Join(reasons, ", "), s.Most, s.Lost, s.Disordered, s.Wrong)
}
