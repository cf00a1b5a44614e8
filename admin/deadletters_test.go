package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDeadLetters(t *testing.T) {
	b := newBench(t)
	letters, err := b.client.DeadLetters(t.Context(), audit, 0)
	if err != nil || len(letters) != 3 || letters[0].ID != "msg_a" || !letters[0].Time.Equal(died) {
		t.Errorf("%+v, %v", letters, err)
	}
	if letters, err = b.client.DeadLetters(t.Context(), audit, 2); err != nil || len(letters) != 2 {
		t.Errorf("%+v, %v", letters, err)
	}
	b.pushed.letters = nil
	if a := b.must(nil, http.MethodGet, "subscriptions/"+audit+"/dead_letters", ""); strings.TrimSpace(string(a.body)) != `{"items":[]}` {
		t.Errorf("%s", a.body)
	}
	for _, query := range []string{"limit=1001", "after=x", "state=x"} {
		b.refused(400, BadRequest, http.MethodGet, "subscriptions/"+audit+"/dead_letters?"+query, "")
	}
	for _, err := range []error{context.DeadlineExceeded, fmt.Errorf("reading: %w", context.Canceled)} {
		b.pushed.fails = err
		b.refused(504, Unknown, http.MethodGet, "subscriptions/"+audit+"/dead_letters", "")
	}
	b.pushed.fails = NewProblem(http.StatusServiceUnavailable, "broker-unavailable", "the broker is away")
	b.refused(503, "broker-unavailable", http.MethodGet, "subscriptions/"+audit+"/dead_letters", "")
}

// redeliver runs one, and returns the ids that a line came for.
func (b *bench) redeliver(r RedeliverRequest) (ids []string, report RedeliveryReport, err error) {
	b.Helper()
	report, err = b.client.Redeliver(b.Context(), audit, r, func(one Redelivered) error {
		ids = append(ids, one.ID+" "+one.Outcome)
		return nil
	})
	return ids, report, err
}

func TestRedeliver(t *testing.T) {
	b := newBench(t)
	for name, c := range map[string]struct {
		request RedeliverRequest
		want    string
		report  string
		rate    string
	}{
		"all":      {RedeliverRequest{All: true}, "msg_a delivered,msg_b timeout,msg_c delivered", "3 2 1 2 []", "10/1s"},
		"by id":    {RedeliverRequest{IDs: []string{"msg_c", "msg_x", "msg_a", "msg_c"}, Rate: "10000/1s"}, "msg_a delivered,msg_c delivered", "3 2 0 2 [msg_x]", "10000/1s"},
		"since":    {RedeliverRequest{Since: died.Add(time.Hour), Rate: "1/1h"}, "msg_b timeout,msg_c delivered", "3 1 1 1 []", "1/1h"},
		"until":    {RedeliverRequest{Until: died.Add(time.Hour), Keep: true}, "msg_a delivered", "3 1 0 0 []", "10/1s"},
		"between":  {RedeliverRequest{Since: died.Add(time.Second), Until: died.Add(time.Hour + 1), Rate: "20000/2s"}, "msg_b timeout", "3 0 1 0 []", "20000/2s"},
		"nothing":  {RedeliverRequest{Since: died.Add(24 * time.Hour)}, "", "3 0 0 0 []", "10/1s"},
		"not seen": {RedeliverRequest{IDs: []string{"z", "y"}}, "", "3 0 0 0 [y z]", "10/1s"},
	} {
		b.pushed.asked = nil
		ids, r, err := b.redeliver(c.request)
		if got := strings.Join(ids, ","); err != nil || got != c.want {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		if got := fmt.Sprint(r.Read, r.Delivered, r.Failed, r.Removed, r.Missing); got != c.report {
			t.Errorf("%s: %s, want %s", name, got, c.report)
		}
		if got := b.pushed.asked[0].Rate.String(); got != c.rate || !slices.IsSorted(b.pushed.asked[0].IDs) {
			t.Errorf("%s: %+v", name, b.pushed.asked[0])
		}
	}
	_, _, err := b.redeliver(RedeliverRequest{})
	b.no(err, 400, InvalidBody)
}

func TestRedeliveryIsBounded(t *testing.T) {
	b := newBench(t)
	many := slices.Repeat([]string{"msg_a"}, maxLetterIDs)
	if _, _, err := b.redeliver(RedeliverRequest{IDs: many}); err != nil {
		t.Error(err)
	}
	b.pushed.asked = nil
	for name, c := range map[string]struct {
		request RedeliverRequest
		paths   string
	}{
		"too many":       {RedeliverRequest{IDs: append(many, "x")}, "ids"},
		"an empty id":    {RedeliverRequest{IDs: []string{"a", ""}}, "ids[1]"},
		"a long id":      {RedeliverRequest{IDs: []string{strings.Repeat("x", maxLetterID+1)}}, "ids[0]"},
		"nothing":        {RedeliverRequest{Keep: true}, ""},
		"two selections": {RedeliverRequest{All: true, IDs: []string{"a"}}, ""},
		"all and a time": {RedeliverRequest{All: true, Since: died}, ""},
		"backwards":      {RedeliverRequest{Since: died, Until: died}, "until"},
		"too fast":       {RedeliverRequest{All: true, Rate: "10001/1s"}, "rate"},
		"too fast too":   {RedeliverRequest{All: true, Rate: "101/10ms"}, "rate"},
		"no rate":        {RedeliverRequest{All: true, Rate: "fast"}, "rate"},
		"no rate at all": {RedeliverRequest{All: true, Rate: "0/1s"}, "rate"},
		"all of it":      {RedeliverRequest{IDs: []string{""}, All: true, Rate: strings.Repeat("9", 1000)}, " ids[0] rate"},
	} {
		_, _, err := b.redeliver(c.request)
		problem, ok := errors.AsType[*ProblemDetails](err)
		if !ok || problem.Slug() != InvalidBody || len(problem.Error()) > 1000 {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var paths []string
		for _, p := range problem.Problems {
			paths = append(paths, p.Path)
		}
		if got := strings.Join(paths, " "); got != c.paths {
			t.Errorf("%s: problems at %q, want %q", name, got, c.paths)
		}
	}
	if b.pushed.asked != nil {
		t.Errorf("%+v", b.pushed.asked)
	}
}

// A line is there as soon as its letter was sent.
func TestRedeliveryTellsAtOnce(t *testing.T) {
	b := newBench(t)
	seen := make(chan struct{})
	b.pushed.pace = func() { <-seen }
	n := 0
	report, err := b.client.Redeliver(t.Context(), audit, RedeliverRequest{All: true}, func(Redelivered) error {
		if n++; n < 3 {
			seen <- struct{}{} // the next one is sent only after this line has come
		}
		return nil
	})
	if err != nil || n != 3 || report.Delivered != 2 {
		t.Errorf("%d, %+v, %v", n, report, err)
	}
}

func TestRedeliveryThatFails(t *testing.T) {
	b := newBench(t)
	b.pushed.fails = errBroken
	_, _, err := b.redeliver(RedeliverRequest{All: true})
	b.no(err, 500, Internal)
	b.lastLine("failed", Internal)
	b.pushed.failsAfter = 2
	ids, report, err := b.redeliver(RedeliverRequest{All: true})
	b.no(err, 500, Internal)
	if len(ids) != 2 || report.Delivered != 1 || report.Failed != 1 || strings.Contains(err.Error(), "fire") {
		t.Errorf("%v, %+v, %v", ids, report, err)
	}
	b.lastLine("failed", Internal)
	if last := b.lines(); !strings.Contains(last, `"1 delivered","1 failed","1 removed"`) {
		t.Error(last)
	}
	b.pushed.fails = NewProblem(http.StatusServiceUnavailable, "broker-unavailable", "the broker is away")
	_, _, err = b.redeliver(RedeliverRequest{All: true})
	b.no(err, 503, "broker-unavailable")
}

// Who goes away ends it, and what was sent until then is in the audit log.
func TestRedeliveryEndsWithTheConnection(t *testing.T) {
	b := newBench(t)
	gone := make(chan struct{})
	b.pushed.pace = func() { <-gone }
	stop := errors.New("enough")
	_, err := b.client.Redeliver(t.Context(), audit, RedeliverRequest{All: true}, func(Redelivered) error { return stop })
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	b.client.Close()
	close(gone)
	deadline := time.Now().Add(10 * time.Second)
	for b.audit.Len() == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	// Whether the second letter was sent before the gateway noticed is open.
	lines := b.lines()
	if !strings.Contains(lines, "subscription redeliver") || !strings.Contains(lines, `"1 delivered"`) && !strings.Contains(lines, `"2 delivered"`) {
		t.Error(lines)
	}
	if n := b.log.Len(); n != 0 {
		t.Errorf("it is no failure of the gateway: %v", b.log.All())
	}
}

// An answer without its last line is none.
func TestBrokenRedelivery(t *testing.T) {
	for _, rest := range []string{"", `{"id":"msg_b`} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, `{"id":"msg_a","outcome":"delivered","duration":"1s","removed":true}`)
			fmt.Fprint(w, rest)
		}))
		c := &Client{Base: server.URL}
		n := 0
		_, err := c.Redeliver(t.Context(), "s", RedeliverRequest{All: true}, func(r Redelivered) error { n++; return nil })
		if n != 1 || err == nil || !strings.Contains(err.Error(), "broke off") {
			t.Errorf("%d, %v", n, err)
		}
		c.Close()
		server.Close()
	}
}

// Caddy's admin endpoint gives a request 10 s. A redelivery may take longer.
func TestRedeliveryOutlivesTheReadTimeout(t *testing.T) {
	const timeout = 50 * time.Millisecond
	b := newBench(t)
	b.pushed.pace = func() { time.Sleep(2 * timeout) } // it is slow: that is what is tested
	server := httptest.NewUnstartedServer(b.server.Config.Handler)
	server.Config.ReadTimeout, server.Config.WriteTimeout = timeout, timeout
	server.Start()
	defer server.Close()
	b.client.Close()
	b.client = &Client{Base: server.URL}
	defer b.client.Close()
	if ids, report, err := b.redeliver(RedeliverRequest{All: true}); err != nil || len(ids) != 3 || report.Read != 3 {
		t.Errorf("%v, %+v, %v", ids, report, err)
	}
}
