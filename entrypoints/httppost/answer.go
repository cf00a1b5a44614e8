package httppost

import (
	"net/http"
	"strconv"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// retryAfter is what a client is told when the broker is down and nobody knows for how long.
const retryAfter = 5 * time.Second

// problemOf is the problem for an error about messages that were not published.
func problemOf(err error) *entrypoints.Problem {
	p := entrypoints.AsProblem(err)
	if p.Status == http.StatusServiceUnavailable && p.RetryAfter == 0 {
		again := *p
		again.RetryAfter = retryAfter
		return &again
	}
	return p
}

// failure is the problem that a result stands for; nil if the message is published.
func failure(result *message.Result) *entrypoints.Problem {
	switch {
	case result.Status.OK():
		return nil
	case result.Status == message.Refused && result.Err != nil:
		return problemOf(result.Err)
	case result.Status == message.Refused:
		return &entrypoints.Problem{
			Status: http.StatusBadGateway, Slug: message.Denied.String(), Detail: "the broker refused the message",
		}
	}
	p := &entrypoints.Problem{
		Status: http.StatusGatewayTimeout, Slug: message.OutcomeUnknown.String(),
		Detail: "the broker did not confirm the message: it may be stored, and sending it again may store it twice",
		Err:    result.Err,
	}
	if p.Err == nil {
		return p
	}
	if cause := entrypoints.AsProblem(p.Err); cause.Slug != message.Internal.String() {
		p.Detail += ". Cause: " + cause.Detail
	}
	return p
}

// answer is the body of a response that tells of each message.
type answer struct {
	items  []byte
	count  int
	failed int
	full   bool // with metadata, as Prefer: return=representation asks
}

// add appends the item for a result.
func (a *answer) add(result *message.Result) {
	if p := failure(result); p != nil {
		a.addProblem(p)
		return
	}
	a.begin(http.StatusAccepted)
	if result.ID != "" {
		a.items = append(a.items, `,"id":`...)
		a.items = message.AppendJSONString(a.items, result.ID)
	}
	if a.full && len(result.Metadata) > 0 {
		a.items = append(a.items, `,"metadata":`...)
		a.items = message.AppendJSONMetadata(a.items, result.Metadata)
	}
	a.items = append(a.items, '}')
}

// addProblem appends the item for a message that is not published.
func (a *answer) addProblem(p *entrypoints.Problem) {
	a.failed++
	a.begin(p.Status)
	a.items = append(a.items, `,"type":`...)
	a.items = message.AppendJSONString(a.items, entrypoints.ProblemPrefix+p.Slug)
	a.items = append(a.items, `,"detail":`...)
	a.items = message.AppendJSONString(a.items, p.Detail)
	a.items = append(a.items, '}')
}

func (a *answer) begin(status int) {
	a.count++
	a.items = append(a.items, `,{"status":`...)
	a.items = strconv.AppendInt(a.items, int64(status), 10)
}

// write writes the response.
func (a *answer) write(w http.ResponseWriter, r *http.Request) error {
	const head, tail = `{"items":[`, "]}\n"
	items := a.items[min(1, len(a.items)):] // without the first separator
	status := http.StatusAccepted
	if a.failed > 0 {
		status = http.StatusMultiStatus
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(head)+len(items)+len(tail)))
	if a.full {
		h.Set("Preference-Applied", "return=representation")
	}
	w.WriteHeader(status)
	out := entrypoints.NewWriter(w, r, 0)
	defer out.Finish()
	if err := out.PutAll([][]byte{[]byte(head), items, []byte(tail)}); err != nil {
		return err
	}
	return out.Flush()
}
