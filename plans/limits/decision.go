package limits

import (
	"net/http"
	"strconv"
	"time"
)

// What a request is refused by.
const (
	ByRateLimit = "rate_limit"
	ByQuota     = "quota"
)

// Decision is what came of a request.
type Decision struct {
	Allowed bool
	// By is the limit that refuses: rate_limit or quota.
	By string
	// RetryAfter is when a request will be allowed, as far as this client's own ones go.
	RetryAfter time.Duration
	// Rate and Quota tell how the limits stand after the request; nil is not limited.
	Rate, Quota *State
}

// State is how a limit stands.
type State struct {
	// Limit is how many there are in all, Remaining how many are left.
	Limit, Remaining int64
	// Reset is when all of them are there again if no more are used.
	Reset time.Duration
}

func (d *Decision) refuse(by string, retry time.Duration) {
	if d.Allowed {
		d.Allowed, d.By = false, by
	}
	d.RetryAfter = max(d.RetryAfter, retry)
}

// HeaderNames are the response headers that SetHeaders writes, but Retry-After.
var HeaderNames = []string{
	"X-Rate-Limit-Limit", "X-Rate-Limit-Remaining", "X-Rate-Limit-Reset",
	"X-Quota-Limit", "X-Quota-Remaining", "X-Quota-Reset",
}

// SetHeaders tells the client: X-Rate-Limit-Limit, -Remaining and -Reset, X-Quota-Limit,
// -Remaining and -Reset, and when it was refused Retry-After. Times are in whole seconds from
// now, rounded up.
func (d Decision) SetHeaders(h http.Header) {
	var w headerWriter
	w.state(HeaderNames[:3], d.Rate)
	w.state(HeaderNames[3:], d.Quota)
	if !d.Allowed {
		w.add("Retry-After", max(seconds(d.RetryAfter), 1))
	}
	w.write(h)
}

// headerWriter collects headers whose values share their memory: they are written for every
// request.
type headerWriter struct {
	n     int
	names [maxHeaders]string
	ends  [maxHeaders]int
	text  [maxHeaders * 20]byte
}

const maxHeaders = 7

func (w *headerWriter) state(names []string, s *State) {
	if s == nil {
		return
	}
	w.add(names[0], s.Limit)
	w.add(names[1], s.Remaining)
	w.add(names[2], seconds(s.Reset))
}

func (w *headerWriter) add(name string, value int64) {
	w.names[w.n] = name
	w.ends[w.n] = len(strconv.AppendInt(w.text[:w.start()], value, 10))
	w.n++
}

func (w *headerWriter) start() int {
	if w.n == 0 {
		return 0
	}
	return w.ends[w.n-1]
}

func (w *headerWriter) write(h http.Header) {
	if w.n == 0 {
		return
	}
	text, values, start := string(w.text[:w.start()]), make([]string, w.n), 0
	for i := range w.n {
		values[i] = text[start:w.ends[i]]
		h[w.names[i]] = values[i : i+1 : i+1]
		start = w.ends[i]
	}
}

// seconds rounds up.
func seconds(d time.Duration) int64 { return int64((max(d, 0) + time.Second - 1) / time.Second) }
