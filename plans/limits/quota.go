package limits

import (
	"net/url"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

// Counters count what is used of quotas. They outlive the process, and add up what several
// nodes count. The store's are such.
type Counters interface {
	// Add counts n more in a window of a key, and returns what all nodes together have
	// counted in it, as far as this one knows. What ended before now may be forgotten.
	Add(key string, window int64, n int64, end time.Time) (total int64)
	// Total is what all nodes together have counted, as far as this one knows.
	Total(key string, window int64) int64
}

// quota counts the requests of one account in windows. Account.mu guards it.
type quota struct {
	of       plans.Quota
	since    time.Time
	key      string
	counters Counters
	local    local

	// The window that was found last, good from at until before end, in Unix nanoseconds of
	// the wall clock.
	number  int64
	at, end int64
	ends    time.Time
}

// counted returns the quota for what is allowed now, or none.
func counted(q *quota, k *Key, of *plans.Quota, since time.Time, c Counters) *quota {
	if of == nil || of.N <= 0 {
		return nil
	}
	if q == nil || q.of.Per != of.Per || q.of.Calendar != of.Calendar || !q.since.Equal(since) {
		q = &quota{since: since, key: counterKey(k, of)}
	}
	q.of, q.counters = *of, c
	if c == nil {
		q.counters = &q.local
	}
	return q
}

// counterKey names the counter. Windows of other lengths have other numbers, so each length
// has a counter of its own; a changed number of requests goes on with the same.
func counterKey(k *Key, of *plans.Quota) string {
	period := plans.Quota{N: 1, Per: of.Per, Calendar: of.Calendar}.String()[len("1/"):]
	esc := url.QueryEscape // so that no two keys are written alike
	return esc(k.API) + " " + esc(k.Plan) + " " + esc(k.Who) + " " + period
}

// window finds the window that now lies in. A clock that went back finds the one before, as
// every other node would.
func (q *quota) window(now time.Time) {
	wall := now.UnixNano()
	if q.at != 0 && wall >= q.at && wall < q.end {
		return
	}
	q.number, q.ends = q.of.Window(q.since, now)
	q.at, q.end = wall, q.ends.UnixNano()
}

func (q *quota) used() int64 { return q.counters.Total(q.key, q.number) }

func (q *quota) count() (used int64) { return q.counters.Add(q.key, q.number, 1, q.ends) }

func (q *quota) state(now time.Time, used int64) State {
	left := time.Duration(q.end - now.UnixNano())
	return State{Limit: q.of.N, Remaining: max(q.of.N-used, 0), Reset: max(left, 0)}
}

// local counts for one account where there is nothing that outlives the process.
type local struct{ window, n int64 }

// Add implements Counters.
func (l *local) Add(_ string, window int64, n int64, _ time.Time) int64 {
	l.n = l.Total("", window) + n
	l.window = window
	return l.n
}

// Total implements Counters.
func (l *local) Total(_ string, window int64) int64 {
	if l.window != window {
		return 0
	}
	return l.n
}

// Interface guards
var _ Counters = (*local)(nil)
