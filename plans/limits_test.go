package plans_test

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestRateText(t *testing.T) {
	for text, want := range map[string]struct {
		rate plans.Rate
		back string
	}{
		"10/1s":              {plans.Rate{N: 10, Per: time.Second}, "10/1s"},
		"1/1ms":              {plans.Rate{N: 1, Per: time.Millisecond}, "1/1ms"},
		"5/60s":              {plans.Rate{N: 5, Per: time.Minute}, "5/1m"},
		"5/90s":              {plans.Rate{N: 5, Per: 90 * time.Second}, "5/1m30s"},
		"5/10m":              {plans.Rate{N: 5, Per: 10 * time.Minute}, "5/10m"},
		"5/60m":              {plans.Rate{N: 5, Per: time.Hour}, "5/1h"},
		"5/1.5s":             {plans.Rate{N: 5, Per: 1500 * time.Millisecond}, "5/1.5s"},
		"1000000000000/1s":   {plans.Rate{N: 1e12, Per: time.Second}, "1000000000000/1s"},
		"7/59m59s999ms":      {plans.Rate{N: 7, Per: time.Hour - time.Millisecond}, "7/59m59.999s"},
		"1/1001us":           {plans.Rate{N: 1, Per: 1001 * time.Microsecond}, "1/1.001ms"},
		"0010/1s":            {plans.Rate{N: 10, Per: time.Second}, "10/1s"},
		"2/0h10m":            {plans.Rate{N: 2, Per: 10 * time.Minute}, "2/10m"},
		"3/20m0s":            {plans.Rate{N: 3, Per: 20 * time.Minute}, "3/20m"},
		"9/1000000us":        {plans.Rate{N: 9, Per: time.Second}, "9/1s"},
		"9/3600000000000ns":  {plans.Rate{N: 9, Per: time.Hour}, "9/1h"},
		"999999999999/30m1s": {plans.Rate{N: 999999999999, Per: 30*time.Minute + time.Second}, "999999999999/30m1s"},
	} {
		var r plans.Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want.rate {
			t.Errorf("%s: %+v, %v", text, r, err)
			continue
		}
		if r.String() != want.back {
			t.Errorf("%s came back as %s, want %s", text, r, want.back)
		}
	}
}

func TestRateRefuses(t *testing.T) {
	for text, hint := range map[string]string{
		"": "10/1s", "10": "10/1s", "/1s": "10/1s", "0/1s": "10/1s", "-1/1s": "10/1s", "1.5/1s": "10/1s", "x/1s": "10/1s",
		"1000000000001/1s": "10/1s", "99999999999999999999/1s": "10/1s",
		"10/": "1s, 1m", "10/1": "1s, 1m", "10/s": "1s, 1m", "10/0s": "1s, 1m", "10/-1s": "1s, 1m", "10/1us": "1s, 1m", "10/1s/2": "1s, 1m",
		"10/1mo": "1s, 1m", "10/1 s": "1s, 1m", "10/1s calendar": "1s, 1m",
		"10/2h": "use quota", "10/1d": "use quota", "10/1w": "use quota",
		"10/0d": "days or weeks", "10/-1d": "days or weeks", "10/d": "days or weeks", "10/99999999999999d": "days or weeks", "10/1.5d": "days or weeks",
	} {
		r := plans.Rate{N: 3, Per: 4}
		err := r.UnmarshalText([]byte(text))
		if err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v; it says nothing of %q", text, err, hint)
		}
		if r != (plans.Rate{N: 3, Per: 4}) {
			t.Errorf("%q: refused, and left %+v", text, r)
		}
	}
}

func TestQuotaText(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]struct {
		quota plans.Quota
		back  string
	}{
		"1000/1d":            {plans.Quota{N: 1000, Per: day}, "1000/1d"},
		"1000/1d strict":     {plans.Quota{N: 1000, Per: day}, "1000/1d"},
		"1000/1d calendar":   {plans.Quota{N: 1000, Per: day, Calendar: true}, "1000/1d calendar"},
		"1000/24h calendar":  {plans.Quota{N: 1000, Per: day, Calendar: true}, "1000/1d calendar"},
		"  1000/1h  ":        {plans.Quota{N: 1000, Per: time.Hour}, "1000/1h"},
		"1/1h   calendar":    {plans.Quota{N: 1, Per: time.Hour, Calendar: true}, "1/1h calendar"},
		"1000/1w":            {plans.Quota{N: 1000, Per: 7 * day}, "1000/7d"},
		"1000/7d calendar":   {plans.Quota{N: 1000, Per: 7 * day, Calendar: true}, "1000/7d calendar"},
		"1000/1mo":           {plans.Quota{N: 1000}, "1000/1mo"},
		"1000/1mo calendar":  {plans.Quota{N: 1000, Calendar: true}, "1000/1mo calendar"},
		"1/1m":               {plans.Quota{N: 1, Per: time.Minute}, "1/1m"},
		"1/36h":              {plans.Quota{N: 1, Per: 36 * time.Hour}, "1/36h"},
		"1/25h30m":           {plans.Quota{N: 1, Per: 25*time.Hour + 30*time.Minute}, "1/25h30m"},
		"5/3660d":            {plans.Quota{N: 5, Per: 3660 * day}, "5/3660d"},
		"5/522w":             {plans.Quota{N: 5, Per: 522 * 7 * day}, "5/3654d"},
		"1000000000000/100h": {plans.Quota{N: 1e12, Per: 100 * time.Hour}, "1000000000000/100h"},
	} {
		var q plans.Quota
		if err := q.UnmarshalText([]byte(text)); err != nil || q != want.quota {
			t.Errorf("%s: %+v, %v", text, q, err)
			continue
		}
		if q.String() != want.back {
			t.Errorf("%s came back as %s, want %s", text, q, want.back)
		}
	}
}

func TestQuotaRefuses(t *testing.T) {
	for text, hint := range map[string]string{
		"": "10/1s", "1000": "10/1s", "0/1d": "10/1s", "1000 /1d": "10/1s", "calendar": "10/1s",
		"1000/": "1s, 1m", "1000/1y": "1s, 1m", "1000/2mo": "1s, 1m", "1000/month": "1s, 1m",
		"1000/1s": "use rate_limit", "1000/59s": "use rate_limit",
		"1000/1d rolling": "strict or calendar", "1000/1d Calendar": "strict or calendar", "1000/1d calendar strict": "strict or calendar",
		"1000/2d calendar": "1h, 1d, 1w or 1mo", "1000/30m calendar": "1h, 1d, 1w or 1mo", "1000/2w calendar": "1h, 1d, 1w or 1mo",
		"1000/3661d": "days or weeks",
	} {
		q := plans.Quota{N: 3}
		err := q.UnmarshalText([]byte(text))
		if err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v; it says nothing of %q", text, err, hint)
		}
		if q != (plans.Quota{N: 3}) {
			t.Errorf("%q: refused, and left %+v", text, q)
		}
	}
}

func FuzzRate(f *testing.F) {
	for _, s := range []string{"10/1s", "1/1ms", "5/59m59s", "7/1h", "", "/", "0/0", "1/1d", "9/1.0000001s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var r, back plans.Rate
		if r.UnmarshalText([]byte(s)) != nil {
			return
		}
		if r.N < 1 || r.Per < time.Millisecond || r.Per > time.Hour {
			t.Fatalf("%q became %+v", s, r)
		}
		if err := back.UnmarshalText([]byte(r.String())); err != nil || back != r {
			t.Fatalf("%q became %+v, which is written %s and read as %+v, %v", s, r, r, back, err)
		}
	})
}

func FuzzQuota(f *testing.F) {
	for _, s := range []string{"10/1d", "1/1mo", "1/1mo calendar", "5/1w calendar", "7/1h strict", "", "/", "9/90000s", "1/3660d"} {
		f.Add(s, int64(1_790_000_000), int64(1_795_000_000))
	}
	f.Fuzz(func(t *testing.T, s string, since, now int64) {
		var q, back plans.Quota
		if q.UnmarshalText([]byte(s)) != nil {
			return
		}
		if err := back.UnmarshalText([]byte(q.String())); err != nil || back != q {
			t.Fatalf("%q became %+v, which is written %s and read as %+v, %v", s, q, q, back, err)
		}
		const century = 100 * 365 * 24 * 3600
		if since < 1 || since > now || now > century {
			return
		}
		inWindow(t, &q, time.Unix(since, 0), time.Unix(now, 0))
	})
}

// inWindow checks the window of now, and that it is followed by the next one.
func inWindow(t *testing.T, q *plans.Quota, since, now time.Time) {
	t.Helper()
	number, end := q.Window(since, now)
	if !end.After(now) {
		t.Fatalf("%s since %v: the window of %v ends at %v", q, since, now, end)
	}
	longest := q.Per
	if q.Per == 0 {
		longest = 31 * 24 * time.Hour
	}
	if end.Sub(now) > longest {
		t.Fatalf("%s since %v: the window of %v ends at %v, which is too late", q, since, now, end)
	}
	if n, e := q.Window(since, end.Add(-1)); n != number || !e.Equal(end) {
		t.Fatalf("%s since %v: at the end of window %d (%v) it is %d, until %v", q, since, number, end, n, e)
	}
	if n, e := q.Window(since, end); n != number+1 || !e.After(end) {
		t.Fatalf("%s since %v: after window %d (%v) comes %d, until %v", q, since, number, end, n, e)
	}
}

func TestWindowsFollowEachOther(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, text := range []string{"1/1m", "1/1h", "1/1h calendar", "1/1d", "1/1d calendar", "1/36h", "1/1w", "1/1w calendar", "1/1mo", "1/1mo calendar", "1/3660d"} {
		var q plans.Quota
		if err := q.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		for range 500 {
			since := time.Unix(r.Int64N(2_000_000_000), r.Int64N(1e9))
			now := since.Add(time.Duration(r.Int64N(int64(30 * 365 * 24 * time.Hour))))
			inWindow(t, &q, since, now)
			inWindow(t, &q, since, since)
			inWindow(t, &q, time.Time{}, now)
		}
	}
}

func TestWindow(t *testing.T) {
	for _, tc := range []struct{ quota, since, now, end string }{
		{"1/1h calendar", "2026-03-05T10:20:30Z", "2026-11-21T16:59:59.999999999Z", "2026-11-21T17:00:00Z"},
		{"1/1d calendar", "2026-03-05T10:20:30Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"},
		{"1/1d calendar", "2026-03-05T10:20:30Z", "2024-02-28T23:00:00Z", "2024-02-29T00:00:00Z"},
		{"1/1d", "2026-03-05T10:20:30Z", "2026-11-21T10:20:29Z", "2026-11-21T10:20:30Z"},
		{"1/1d", "2026-03-05T10:20:30Z", "2026-11-21T10:20:30Z", "2026-11-22T10:20:30Z"},
		{"1/1w calendar", "2026-03-05T10:20:30Z", "2026-11-22T23:59:59Z", "2026-11-23T00:00:00Z"}, // a Sunday, and a Monday
		{"1/1w calendar", "2026-03-05T10:20:30Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"},
		{"1/1w", "2026-03-05T10:20:30Z", "2026-03-12T10:20:29Z", "2026-03-12T10:20:30Z"}, // a Thursday
		{"1/1mo calendar", "2026-03-05T10:20:30Z", "2026-11-21T16:00:00Z", "2026-12-01T00:00:00Z"},
		{"1/1mo calendar", "2026-03-05T10:20:30Z", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"},
		{"1/1mo calendar", "2026-03-05T10:20:30Z", "2028-02-29T12:00:00Z", "2028-03-01T00:00:00Z"},
		{"1/1mo", "2026-03-05T10:20:30Z", "2026-11-05T10:20:29Z", "2026-11-05T10:20:30Z"},
		{"1/1mo", "2026-03-05T10:20:30Z", "2026-11-05T10:20:30Z", "2026-12-05T10:20:30Z"},
		// A month that is too short for the day begins on its last, and the next one is right again.
		{"1/1mo", "2026-01-31T06:00:00Z", "2026-02-28T05:59:59Z", "2026-02-28T06:00:00Z"},
		{"1/1mo", "2026-01-31T06:00:00Z", "2026-02-28T06:00:00Z", "2026-03-31T06:00:00Z"},
		{"1/1mo", "2026-01-31T06:00:00Z", "2026-03-30T23:00:00Z", "2026-03-31T06:00:00Z"},
		{"1/1mo", "2026-01-31T06:00:00Z", "2026-04-01T00:00:00Z", "2026-04-30T06:00:00Z"},
		// Leap days.
		{"1/1mo", "2027-12-31T06:00:00Z", "2028-02-10T00:00:00Z", "2028-02-29T06:00:00Z"},
		{"1/1mo", "2028-02-29T06:00:00Z", "2029-02-28T05:00:00Z", "2029-02-28T06:00:00Z"},
		{"1/1mo", "2028-02-29T06:00:00Z", "2029-02-28T06:00:00Z", "2029-03-29T06:00:00Z"},
		{"1/1mo", "2028-02-29T06:00:00Z", "2032-02-29T07:00:00Z", "2032-03-29T06:00:00Z"},
		// Over the change of the year.
		{"1/1mo", "2026-11-30T06:00:00Z", "2027-02-01T00:00:00Z", "2027-02-28T06:00:00Z"},
		// Before it began, by a clock that is behind.
		{"1/1d", "2026-11-21T10:00:00Z", "2026-11-21T09:59:00Z", "2026-11-21T10:00:00Z"},
		{"1/1mo", "2026-11-21T10:00:00Z", "2026-11-21T09:59:00Z", "2026-11-21T10:00:00Z"},
	} {
		var q plans.Quota
		if err := q.UnmarshalText([]byte(tc.quota)); err != nil {
			t.Fatal(err)
		}
		number, end := q.Window(at(tc.since), at(tc.now))
		if !end.Equal(at(tc.end)) {
			t.Errorf("%s since %s: at %s the window ends at %v, want %s", tc.quota, tc.since, tc.now, end, tc.end)
		}
		if next, _ := q.Window(at(tc.since), at(tc.end)); next != number+1 {
			t.Errorf("%s since %s: window %d is followed by %d", tc.quota, tc.since, number, next)
		}
	}
}

// A window is the same wherever a node stands, and has nothing to do with daylight saving.
func TestWindowsKnowNoTimeZone(t *testing.T) {
	zones := []*time.Location{time.FixedZone("east", 14*3600), time.FixedZone("west", -12*3600), time.FixedZone("half", 5*3600+1800)}
	if berlin, err := time.LoadLocation("Europe/Berlin"); err == nil {
		zones = append(zones, berlin)
	} else {
		t.Logf("not tried: %v", err)
	}
	since := at("2026-01-31T23:30:00Z")
	for _, text := range []string{"1/1h calendar", "1/1d", "1/1d calendar", "1/1w calendar", "1/1mo", "1/1mo calendar"} {
		var q plans.Quota
		if err := q.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		// Over both changes of the clock in Europe.
		for now := at("2026-03-25T00:15:00Z"); now.Before(at("2026-11-02T00:00:00Z")); now = now.Add(97 * time.Minute) {
			number, end := q.Window(since, now)
			if end.Location() != time.UTC {
				t.Fatalf("%s: the end is in %v", text, end.Location())
			}
			for _, zone := range zones {
				if n, e := q.Window(since.In(zone), now.In(zone)); n != number || !e.Equal(end) {
					t.Fatalf("%s at %v: window %d until %v, and in %v %d until %v", text, now, number, end, zone, n, e)
				}
			}
		}
	}
}

func TestLimitsOver(t *testing.T) {
	one, two := &plans.Rate{N: 1, Per: 1}, &plans.Rate{N: 2, Per: 2}
	q1, q2 := &plans.Quota{N: 1}, &plans.Quota{N: 2}
	plan := plans.Limits{RateLimit: one, Quota: q1, MaxSessions: 1, PublishRate: one, ReceiveRate: one}
	for name, tc := range map[string]struct {
		own  *plans.Limits
		want plans.Limits
	}{
		"none":         {nil, plan},
		"nothing":      {&plans.Limits{}, plan},
		"rate limit":   {&plans.Limits{RateLimit: two}, plans.Limits{RateLimit: two, Quota: q1, MaxSessions: 1, PublishRate: one, ReceiveRate: one}},
		"quota":        {&plans.Limits{Quota: q2}, plans.Limits{RateLimit: one, Quota: q2, MaxSessions: 1, PublishRate: one, ReceiveRate: one}},
		"sessions":     {&plans.Limits{MaxSessions: 9}, plans.Limits{RateLimit: one, Quota: q1, MaxSessions: 9, PublishRate: one, ReceiveRate: one}},
		"publish rate": {&plans.Limits{PublishRate: two}, plans.Limits{RateLimit: one, Quota: q1, MaxSessions: 1, PublishRate: two, ReceiveRate: one}},
		"receive rate": {&plans.Limits{ReceiveRate: two}, plans.Limits{RateLimit: one, Quota: q1, MaxSessions: 1, PublishRate: one, ReceiveRate: two}},
	} {
		if got := plan.Over(tc.own); got != tc.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if plan != (plans.Limits{RateLimit: one, Quota: q1, MaxSessions: 1, PublishRate: one, ReceiveRate: one}) {
		t.Error("the plan's limits were changed")
	}
}

func TestLimitsJSON(t *testing.T) {
	const text = `{"rate_limit":"10/1s","quota":"1000/1mo calendar","max_sessions":5,"publish_rate":"100/1m","receive_rate":"1/1h"}`
	var l plans.Limits
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		t.Fatal(err)
	}
	if back, err := json.Marshal(l); err != nil || string(back) != text {
		t.Errorf("%s, %v", back, err)
	}
	if back, err := json.Marshal(plans.Limits{}); err != nil || string(back) != "{}" {
		t.Errorf("nothing limited: %s, %v", back, err)
	}
	for _, bad := range []string{`{"rate_limit":10}`, `{"rate_limit":"10"}`, `{"quota":"1/1s"}`, `{"publish_rate":{"N":1}}`} {
		if err := json.Unmarshal([]byte(bad), new(plans.Limits)); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func TestLimitsValidate(t *testing.T) {
	for n, ok := range map[int]bool{-1: false, 0: true, 1: true, 1 << 30: true} {
		l := plans.Limits{MaxSessions: n}
		if err := l.Validate(); (err == nil) != ok {
			t.Errorf("max_sessions %d: %v", n, err)
		} else if err != nil && !strings.Contains(err.Error(), "max_sessions") {
			t.Errorf("max_sessions %d: %v does not name it", n, err)
		}
	}
}
