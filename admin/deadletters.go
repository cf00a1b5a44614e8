package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

func (s *Server) listDeadLetters(q *request) (reply, error) {
	w, err := readWindow(q.Request)
	if err != nil {
		return reply{}, err
	}
	if s.Hooks.Push.DeadLetters == nil {
		return reply{}, noWebhooks()
	}
	letters, err := s.Hooks.Push.DeadLetters(q.ctx, q.PathValue("id"), w.limit)
	if err != nil {
		return reply{}, pushProblem(err)
	}
	return reply{body: Page[DeadLetter]{Items: append([]DeadLetter{}, letters[:min(len(letters), w.limit)]...)}}, nil
}

const (
	// maxLetterIDs bounds the ids of one redelivery, maxLetterID the length of each.
	maxLetterIDs = 1000
	maxLetterID  = 256
	// maxLetterRate bounds how many letters are sent in a second.
	maxLetterRate = 10_000
)

// defaultLetterRate leaves a consumer that has just come back room to breathe.
var defaultLetterRate = plans.Rate{N: 10, Per: time.Second}

// parse checks what is asked for, with all that is wrong with it.
func (r *RedeliverRequest) parse() (Redelivery, error) {
	out := Redelivery{IDs: slices.Clone(r.IDs), Since: r.Since, Until: r.Until, All: r.All, Rate: defaultLetterRate, Keep: r.Keep}
	problems := r.selection()
	if len(r.IDs) > maxLetterIDs {
		problems = append(problems, Problem{Path: "ids", Detail: fmt.Sprintf("there are %d; at most %d", len(r.IDs), maxLetterIDs)})
	}
	if i := slices.IndexFunc(r.IDs, func(id string) bool { return id == "" || len(id) > maxLetterID }); i >= 0 {
		problems = append(problems, Problem{Path: fmt.Sprintf("ids[%d]", i), Detail: fmt.Sprintf("an id has 1 to %d bytes", maxLetterID)})
	}
	if r.Rate != "" {
		if err := out.Rate.UnmarshalText([]byte(clip(r.Rate))); err != nil {
			problems = append(problems, Problem{Path: "rate", Detail: err.Error()})
		} else if float64(out.Rate.N)/out.Rate.Per.Seconds() > maxLetterRate {
			problems = append(problems, Problem{Path: "rate", Detail: fmt.Sprintf("at most %d/1s", maxLetterRate)})
		}
	}
	slices.Sort(out.IDs)
	out.IDs = slices.Compact(out.IDs)
	return out, wrongBody(problems)
}

// selection checks that there is one, and one alone: who forgets to choose must not get all.
func (r *RedeliverRequest) selection() (problems []Problem) {
	ways := 0
	for _, way := range []bool{len(r.IDs) > 0, !r.Since.IsZero() || !r.Until.IsZero(), r.All} {
		if way {
			ways++
		}
	}
	if ways != 1 {
		problems = append(problems, Problem{Detail: `it must say which letters are meant: by "ids", by "since" and "until", or by "all": true`})
	}
	if !r.Until.IsZero() && !r.Since.Before(r.Until) {
		problems = append(problems, Problem{Path: "until", Detail: "it must be after since"})
	}
	return problems
}

// redeliver writes a line for every letter when it was sent, and a last one with the counts.
func (s *Server) redeliver(q *request) (reply, error) {
	var body RedeliverRequest
	// As long as the body comes: what is long has no other bound.
	q.Body = struct {
		io.Reader
		io.Closer
	}{patientReader{q.Body, http.NewResponseController(q.w)}, q.Body}
	err := readBody(q.w, q.Request, &body, false)
	q.unhurried() // the last read has set a deadline
	if err != nil {
		return reply{}, err
	}
	selected, err := body.parse()
	if err != nil {
		return reply{}, err
	}
	if s.Hooks.Push.Redeliver == nil {
		return reply{}, noWebhooks()
	}
	out := newRedeliveryLines(q.w, selected.IDs)
	report, err := s.Hooks.Push.Redeliver(q.ctx, q.PathValue("id"), selected, out.each)
	report = out.count(report)
	q.audit.changed = report.counts()
	q.audit.same = report.Delivered+report.Failed+report.Removed == 0
	if err == nil {
		// A client that has vanished is no news: the letters have been sent.
		_ = out.write(redeliveryLine{Done: &report})
		return reply{status: sent}, nil
	}
	if out.gone {
		err = context.Canceled
	}
	if err = pushProblem(err); !out.begun {
		return reply{}, err
	}
	problem := s.problemOf(err, q.Request)
	q.audit.write(s.audit.Load(), problem)
	q.audit = nil
	_ = out.write(redeliveryLine{Problem: problem, Done: &report})
	return reply{status: sent}, nil
}

// counts are for the audit log.
func (r *RedeliveryReport) counts() []string {
	return []string{
		fmt.Sprintf("%d delivered", r.Delivered), fmt.Sprintf("%d failed", r.Failed), fmt.Sprintf("%d removed", r.Removed),
	}
}

// redeliveryLine is one line of the answer: a letter, or, at the end, Done, with Problem if it
// has ended early.
type redeliveryLine struct {
	*Redelivered
	Done    *RedeliveryReport `json:"done,omitempty"`
	Problem *ProblemDetails   `json:"problem,omitempty"`
}

// redeliveryLines writes the answer line by line, and counts.
type redeliveryLines struct {
	w          http.ResponseWriter
	controller *http.ResponseController
	// begun: there is a line; gone: there is nobody any more who takes one.
	begun, gone bool
	report      RedeliveryReport
	missing     map[string]bool
}

func newRedeliveryLines(w http.ResponseWriter, ids []string) *redeliveryLines {
	missing := make(map[string]bool, len(ids))
	for _, id := range ids {
		missing[id] = true
	}
	return &redeliveryLines{w: w, controller: http.NewResponseController(w), missing: missing}
}

func (l *redeliveryLines) each(one Redelivered) error {
	delete(l.missing, one.ID)
	if one.Outcome == OutcomeDelivered {
		l.report.Delivered++
	} else {
		l.report.Failed++
	}
	if one.Removed {
		l.report.Removed++
	}
	return l.write(redeliveryLine{Redelivered: &one})
}

// count puts together what the hook and the server know.
func (l *redeliveryLines) count(of RedeliveryReport) RedeliveryReport {
	l.report.Read, l.report.Missing = of.Read, set(l.missing)
	return l.report
}

// write writes a line and sends it off. A client that reads nothing is waited for as long as
// one that sends nothing; between two lines there may be any time.
func (l *redeliveryLines) write(line redeliveryLine) error {
	if !l.begun {
		l.begun = true
		h := l.w.Header()
		h.Set("Content-Type", "application/x-ndjson")
		h.Set("Cache-Control", "no-store")
	}
	_ = l.controller.SetWriteDeadline(time.Now().Add(stall))
	defer func() { _ = l.controller.SetWriteDeadline(time.Time{}) }()
	err := json.NewEncoder(l.w).Encode(line)
	if err == nil {
		err = l.controller.Flush()
	}
	if err != nil {
		l.gone = true
		return fmt.Errorf("telling the client: %w", err)
	}
	return nil
}
