package plans

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limits are how much a plan allows each of its clients: each subscription, or under a
// keyless plan each network address. A subscription can have limits of its own, which stand,
// each by itself, in the place of its plan's. What is left out is not limited.
type Limits struct {
	// RateLimit is how many requests, and how many at once, e.g. 10/1s. An opened stream
	// is one request.
	RateLimit *Rate `json:"rate_limit,omitempty"`
	// Quota is how many requests over a long time, e.g. 1000/1d. It is counted per node and
	// added up between nodes every sync_interval.
	Quota *Quota `json:"quota,omitempty"`
	// MaxSessions is how many sessions at a time. Default: 16384.
	MaxSessions int `json:"max_sessions,omitempty"`
	// PublishRate is how many messages may be published, e.g. 100/1s. A message over it is
	// refused with 429.
	PublishRate *Rate `json:"publish_rate,omitempty"`
	// ReceiveRate is how many messages are delivered, e.g. 100/1s. Reading is slowed down
	// to it.
	ReceiveRate *Rate `json:"receive_rate,omitempty"`
}

// Over returns the limits with what other has in their place. other may be nil.
func (l Limits) Over(other *Limits) Limits {
	if other == nil {
		return l
	}
	if other.RateLimit != nil {
		l.RateLimit = other.RateLimit
	}
	if other.Quota != nil {
		l.Quota = other.Quota
	}
	if other.MaxSessions != 0 {
		l.MaxSessions = other.MaxSessions
	}
	if other.PublishRate != nil {
		l.PublishRate = other.PublishRate
	}
	if other.ReceiveRate != nil {
		l.ReceiveRate = other.ReceiveRate
	}
	return l
}

// Validate says what is wrong.
func (l *Limits) Validate() error {
	if l.MaxSessions < 0 {
		return fmt.Errorf("max_sessions %d is less than 0", l.MaxSessions)
	}
	return nil
}

// Rate is a number of things in a time, written 10/1s.
type Rate struct {
	N   int64
	Per time.Duration
}

const (
	day  = 24 * time.Hour
	week = 7 * day
	// maxPer is the longest time of a rate. What is counted over longer times is a quota,
	// which outlives a restart.
	maxPer = time.Hour
	// maxPeriod is the longest time of a quota, however it is written.
	maxPeriod = 3660 * day
)

// String returns the rate as it is written.
func (r Rate) String() string { return strconv.FormatInt(r.N, 10) + "/" + formatPeriod(r.Per) }

// MarshalText implements encoding.TextMarshaler.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Rate) UnmarshalText(text []byte) error {
	n, period, err := splitRate(string(text))
	if err != nil {
		return err
	}
	per, err := parsePeriod(period)
	if err != nil {
		return fmt.Errorf("rate %q: %w", text, err)
	}
	if per > maxPer {
		return fmt.Errorf("rate %q: at most per 1h; for longer times use quota", text)
	}
	*r = Rate{N: n, Per: per}
	return nil
}

// Quota is a number of requests in a long time, written 1000/1d, 1000/1d calendar or 1000/1mo
// calendar.
type Quota struct {
	N int64
	// Per is the length of the window; 0 means a calendar month.
	Per time.Duration
	// Calendar: windows begin at the full hour, day (00:00 UTC), week (Monday) or month.
	// Otherwise ("strict") the first one begins with the subscription.
	Calendar bool
}

// String returns the quota as it is written.
func (q Quota) String() string {
	period := "1mo"
	if q.Per > 0 {
		period = formatPeriod(q.Per)
	}
	text := strconv.FormatInt(q.N, 10) + "/" + period
	if q.Calendar {
		text += " calendar"
	}
	return text
}

// MarshalText implements encoding.TextMarshaler.
func (q Quota) MarshalText() ([]byte, error) { return []byte(q.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (q *Quota) UnmarshalText(text []byte) error {
	amount, mode, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	n, period, err := splitRate(amount)
	if err != nil {
		return fmt.Errorf("quota: %w", err)
	}
	parsed := Quota{N: n}
	switch mode = strings.TrimSpace(mode); mode {
	case "", "strict":
	case "calendar":
		parsed.Calendar = true
	default:
		return fmt.Errorf("quota %q: %q: use strict or calendar", text, mode)
	}
	if period != "1mo" {
		if parsed.Per, err = parsePeriod(period); err != nil {
			return fmt.Errorf("quota %q: %w", text, err)
		}
		if parsed.Per < time.Minute {
			return fmt.Errorf("quota %q: at least per 1m; for shorter times use rate_limit", text)
		}
	}
	if parsed.Calendar && parsed.Per != 0 && parsed.Per != time.Hour && parsed.Per != day && parsed.Per != week {
		return fmt.Errorf("quota %q: a calendar quota is per 1h, 1d, 1w or 1mo", text)
	}
	*q = parsed
	return nil
}

// Window returns the window that now lies in: its number, which grows with time and is the
// same on every node, and its end. since is when the subscription began.
func (q *Quota) Window(since, now time.Time) (number int64, end time.Time) {
	now, since = now.UTC(), since.UTC()
	if q.Per == 0 {
		return q.month(since, now)
	}
	base := time.Unix(0, 0).UTC()
	switch {
	case q.Calendar && q.Per == week:
		base = time.Date(1970, 1, 5, 0, 0, 0, 0, time.UTC) // a Monday
	case !q.Calendar && !since.IsZero():
		base = since
	}
	passed := now.Sub(base)
	number = int64(passed / q.Per)
	if passed%q.Per < 0 {
		number--
	}
	return number, base.Add(time.Duration(number+1) * q.Per)
}

// month finds the month: the calendar's, or one that begins on the day and at the time of the
// subscription. Where a month is too short for that day, its window begins on its last day.
func (q *Quota) month(since, now time.Time) (number int64, end time.Time) {
	if q.Calendar || since.IsZero() {
		since = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	number = int64(now.Year()-since.Year())*12 + int64(now.Month()-since.Month())
	if now.Before(monthsAfter(since, number)) {
		number--
	}
	return number, monthsAfter(since, number+1)
}

func monthsAfter(t time.Time, n int64) time.Time {
	first := time.Date(t.Year(), t.Month()+time.Month(n), 1, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
	last := first.AddDate(0, 1, -1).Day()
	return first.AddDate(0, 0, min(t.Day(), last)-1)
}

func splitRate(text string) (n int64, period string, err error) {
	number, period, ok := strings.Cut(text, "/")
	n, numErr := strconv.ParseInt(number, 10, 64)
	if !ok || numErr != nil || n < 1 || n > 1e12 {
		return 0, "", fmt.Errorf("%q: write a number, a slash and a time, like 10/1s", text)
	}
	return n, period, nil
}

func parsePeriod(text string) (time.Duration, error) {
	unit := time.Duration(0)
	switch {
	case strings.HasSuffix(text, "d"):
		unit = day
	case strings.HasSuffix(text, "w"):
		unit = week
	}
	if unit > 0 {
		n, err := strconv.Atoi(text[:len(text)-1])
		if err != nil || n < 1 || n > int(maxPeriod/unit) {
			return 0, fmt.Errorf("the time %q is no number of days or weeks, up to 3660d", text)
		}
		return time.Duration(n) * unit, nil
	}
	per, err := time.ParseDuration(text)
	if err != nil || per < time.Millisecond || per > maxPeriod {
		return 0, fmt.Errorf("the time %q is none: use 1s, 1m, 1h, 1d or 1w, for example", text)
	}
	return per, nil
}

func formatPeriod(d time.Duration) string {
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
