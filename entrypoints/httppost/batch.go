package httppost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// A batch is published in parts of this size, so that memory is bounded and the broker's
// client has enough to work with.
const (
	partMessages = 500
	partBytes    = 1 << 20
)

// batch publishes lines in parts while they are read.
type batch struct {
	answer
	ctx      context.Context
	session  entrypoints.Session
	defaults []message.Header

	// part has an entry per line since the last publish: a message, or why there is none.
	part  []entry
	bytes int
	total int // lines of the whole batch, but for blank ones
	// tried: some part was handed over. failed: no further part will be, because the
	// endpoint took nothing of one.
	tried  bool
	failed *entrypoints.Problem
}

// entry is what became of one line: a message to publish, or a problem.
type entry struct {
	message *message.Message
	problem *entrypoints.Problem
}

func (e *Entrypoint) serveBatch(w http.ResponseWriter, r *http.Request, s entrypoints.Session) error {
	b := batch{ctx: r.Context(), session: s}
	b.full = wantsRepresentation(r.Header)
	if e.RequestHeadersToMessage {
		var err error
		if b.defaults, err = batchHeaders(r.Header, s.Withheld); err != nil {
			return e.refuseRest(w, r, err)
		}
	}
	unread, err := b.run(r.Body, e.MaxBody)
	if unread {
		err = e.refuseRest(w, r, err)
	}
	if err != nil {
		return err
	}
	if b.count == 0 {
		return emptyBody()
	}
	return b.write(w, r)
}

// run reads and publishes. An error means that nothing was published; unread, that the
// body was not read to its end.
func (b *batch) run(body io.Reader, limit int64) (unread bool, err error) {
	lines := newLines(body, limit)
	defer lines.close()
	for {
		line, err := lines.next()
		switch {
		case err == io.EOF:
			return false, b.publish()
		case errors.Is(err, errEndless):
			b.refuse(http.StatusRequestEntityTooLarge, "too-large",
				"a line far longer than %d bytes, or too many blank lines: nothing from here on was published", limit)
			return true, b.publish()
		case (err == nil || errors.Is(err, errLineTooLong)) && b.total == MaxBatch:
			b.refuse(http.StatusRequestEntityTooLarge, "batch-too-long",
				"a batch holds at most %d messages: nothing from here on was published", MaxBatch)
			return true, b.publish()
		case err == nil:
			b.take(line)
		case errors.Is(err, errLineTooLong):
			b.refuse(http.StatusRequestEntityTooLarge, "too-large", "the line is longer than %d bytes", limit)
		default:
			return true, b.breakOff(readProblem(err))
		}
		if len(b.part) >= partMessages || b.bytes >= partBytes {
			if err := b.publish(); err != nil {
				return true, err
			}
		}
	}
}

func (b *batch) take(line []byte) {
	m, err := decodeLine(line)
	if err != nil {
		b.refuse(http.StatusBadRequest, "bad-line", "%w", err)
		return
	}
	m.Headers = withDefaults(m.Headers, b.defaults)
	b.total++
	b.bytes += m.Size()
	b.session.Received(1, len(m.Payload))
	b.part = append(b.part, entry{message: m})
}

func (b *batch) refuse(status int, slug, format string, args ...any) {
	b.total++
	b.part = append(b.part, entry{problem: &entrypoints.Problem{
		Status: status, Slug: slug, Detail: fmt.Errorf(format, args...).Error(),
	}})
}

// breakOff answers for lines that are read but not published, and will not be.
func (b *batch) breakOff(p *entrypoints.Problem) error {
	if !b.tried {
		return p
	}
	for _, e := range b.part {
		if e.problem == nil {
			e.problem = p
		}
		b.addProblem(e.problem)
	}
	b.addProblem(p) // the line that did not arrive
	return nil
}

// publish hands the part over and notes what became of it. An error means that nothing
// of the whole batch was published.
func (b *batch) publish() error {
	messages := make([]*message.Message, 0, len(b.part))
	for _, e := range b.part {
		if e.message != nil {
			messages = append(messages, e.message)
		}
	}
	var results []message.Result
	if len(messages) > 0 && b.failed == nil {
		var err error
		if results, err = publish(b.ctx, b.session, messages...); err != nil {
			b.failed = problemOf(err)
			if !b.tried {
				return b.failed
			}
		}
		b.tried = true
	}
	b.note(results)
	return nil
}

// note appends the items of the part and makes room for the next.
func (b *batch) note(results []message.Result) {
	down := brokerDown(results)
	for _, e := range b.part {
		switch {
		case e.problem != nil:
			b.addProblem(e.problem)
		case len(results) == 0:
			b.addProblem(b.failed)
		default:
			b.add(&results[0])
			results = results[1:]
		}
	}
	if down != nil {
		b.failed = down
	}
	clear(b.part)
	b.part, b.bytes = b.part[:0], 0
}

// brokerDown is the problem if no message of a part was taken because the broker can't be
// reached: waiting for that again with each further part would help nobody.
func brokerDown(results []message.Result) (p *entrypoints.Problem) {
	for i := range results {
		if p = failure(&results[i]); p == nil || p.Slug != message.Unavailable.String() {
			return nil
		}
	}
	return p
}
