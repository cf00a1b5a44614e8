package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// source is what is to be published.
type source struct {
	io.Reader
	// rewind goes back to the beginning; nil if it can be read only once.
	rewind func() error
	// size is -1 if it is not known before the end.
	size  int64
	close func() error
}

// open opens what is to be published.
func (p *publish) open(args []string) (*source, error) {
	nothing := func() error { return nil }
	switch {
	case p.hasMessage && len(args) > 0:
		return nil, fmt.Errorf("--message and the file %s: give one of them", args[0])
	case p.hasMessage:
		r := strings.NewReader(p.message)
		return &source{r, func() error { r.Reset(p.message); return nil }, r.Size(), nothing}, nil
	case len(args) == 0 || args[0] == "-":
		return &source{p.in, nil, -1, nothing}, nil
	}
	f, err := os.Open(args[0])
	if err != nil {
		return nil, err
	}
	src := &source{f, nil, -1, f.Close}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		src.size = info.Size()
		src.rewind = func() error { _, err := f.Seek(0, io.SeekStart); return err }
	}
	return src, nil
}

// item is what became of one message.
type item struct {
	Line     int             `json:"line,omitempty"`
	Status   int             `json:"status"`
	ID       string          `json:"id,omitempty"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
	Type     string          `json:"type,omitempty"`
	Detail   string          `json:"detail,omitempty"`
}

// problem is why the message was not published, or nil.
func (it *item) problem() error {
	if it.Status == http.StatusAccepted {
		return nil
	}
	return &problem{Type: it.Type, Title: http.StatusText(it.Status), Status: it.Status, Detail: it.Detail}
}

const (
	ndjson = "application/x-ndjson"
	// maxAnswer bounds the answer to a batch: 10,000 items with the longest ids.
	maxAnswer = 64 << 20
)

// post sends one request and reads what became of its messages.
func (p *publish) post(ctx context.Context, contentType string, body io.ReadCloser, size int64) ([]item, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, errTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url.String(), body)
	if err != nil {
		return nil, transportError(err)
	}
	req.Header = p.header.Clone()
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Prefer", "return=representation")
	req.ContentLength = size
	if size == 0 {
		req.Body = http.NoBody
	}
	resp, err := p.http.Do(req)
	if err != nil {
		if errors.Is(context.Cause(ctx), errTimeout) {
			err = errTimeout
		}
		if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
			return nil, transportError(err) // nothing can have been sent
		}
		return nil, &unknownError{transportError(err)}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusMultiStatus {
		return nil, problemOf(resp)
	}
	var answer struct {
		Items []item `json:"items"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&answer)
	if errors.Is(err, io.EOF) && resp.StatusCode == http.StatusAccepted {
		return []item{{Status: http.StatusAccepted}}, nil // a gateway that does not tell more
	}
	if err != nil {
		return nil, &unknownError{fmt.Errorf("reading the answer: %w", err)}
	}
	return answer.Items, nil
}

var errTimeout = errors.New("no answer within --timeout")

// unknownError is an error after which nobody knows what became of the request.
type unknownError struct{ err error }

func (e *unknownError) Error() string {
	return e.err.Error() + "; if the request had been sent, the message may be stored, and sending it again may store it twice"
}

func (e *unknownError) Unwrap() error { return e.err }

const (
	maxTries    = 5
	defaultWait = time.Second
	longestWait = time.Minute
)

// insist calls try until it succeeds, or fails for good. An attempt that tells progress
// begins the count of tries anew.
func (p *publish) insist(ctx context.Context, again bool, try func() (progress bool, err error)) error {
	for n := 1; ; n++ {
		progress, err := try()
		if progress {
			n = 1
		}
		pr, ok := errors.AsType[*problem](err)
		if err == nil || !again || !ok || !pr.temporary() || n == maxTries {
			return err
		}
		wait := pr.retryAfter
		if wait == 0 {
			wait = defaultWait << (n - 1)
		}
		if wait > longestWait {
			return err // who waits longer than that should decide so himself
		}
		if !p.quiet {
			fmt.Fprintf(p.errOut, "%s; trying again in %s\n", printable(pr.Error()), wait)
		}
		if err := pause(ctx, wait); err != nil {
			return fmt.Errorf("interrupted: %w", pr)
		}
	}
}

// pause waits for d, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
