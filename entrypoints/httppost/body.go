package httppost

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// trusted is the announced length up to which room is made before anything has come: a
// client must not cost more memory by its promises than by what it sends.
const trusted = 64 << 10

// readBody reads a whole body of at most limit bytes.
func readBody(r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	if r.ContentLength >= 0 && r.ContentLength <= trusted {
		body := make([]byte, r.ContentLength) // net/http sees to it that there is not more
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, readProblem(err)
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	switch {
	case err != nil:
		return nil, readProblem(err)
	case int64(len(body)) > limit:
		return nil, tooLarge(limit)
	}
	return body, nil
}

func tooLarge(limit int64) *entrypoints.Problem {
	return &entrypoints.Problem{
		Status: http.StatusRequestEntityTooLarge, Slug: "too-large",
		Detail: fmt.Sprintf("the body is larger than %d bytes, the largest message that this API takes", limit),
	}
}

// readProblem tells a client that stopped sending from one that was too slow. Neither has
// had anything published from what it was about to send.
func readProblem(err error) *entrypoints.Problem {
	if tooBig, ok := errors.AsType[*http.MaxBytesError](err); ok { // Caddy's request_body
		p := tooLarge(tooBig.Limit)
		p.Err = err
		return p
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &entrypoints.Problem{
			Status: http.StatusRequestTimeout, Slug: "body-timeout",
			Detail: "the body did not arrive in time", Err: err,
		}
	}
	return &entrypoints.Problem{
		Status: http.StatusBadRequest, Slug: "incomplete-body",
		Detail: "the body could not be read to its end", Err: err,
	}
}

// refuseRest has an HTTP/1 connection closed whose request body is not read to its end.
// Later protocols give up the stream alone.
//
// A client that is still writing when its connection is closed sees a reset, and often
// never the answer. So what is a little too large, up to twice the limit, is read and thrown
// away first; for more than that a bound would be none.
func (e *Entrypoint) refuseRest(w http.ResponseWriter, r *http.Request, err error) error {
	if r.ContentLength <= 2*e.MaxBody {
		_, _ = io.CopyN(io.Discard, r.Body, e.MaxBody) // a client that fails now is gone anyway
	}
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	return err
}
