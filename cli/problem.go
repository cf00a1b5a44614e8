package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

// problem is an error answer of a message API (RFC 9457).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`

	// retryAfter is what the answer said; 0 is nothing.
	retryAfter time.Duration
}

const problemPrefix = "urn:message-api:problem:"

func (p *problem) Error() string {
	text := p.Title
	if slug := p.slug(); slug != "" {
		text = slug
	}
	text += " (" + strconv.Itoa(p.Status) + ")"
	if p.Detail != "" {
		text += ": " + p.Detail
	}
	return text
}

// slug is the end of the type.
func (p *problem) slug() string {
	slug, _ := strings.CutPrefix(p.Type, problemPrefix)
	return slug
}

// temporary says that the same request may succeed later, and that it had no effect.
func (p *problem) temporary() bool {
	return p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable
}

// maxProblem bounds what is read of an error answer.
const maxProblem = 64 << 10

// problemOf reads an answer that is no success.
func problemOf(resp *http.Response) error {
	if location := resp.Header.Get("Location"); location != "" && resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return fmt.Errorf("the answer is a redirect to %s: use that URL, if you trust it with your credential", withoutQuery(location))
	}
	p := &problem{Title: http.StatusText(resp.StatusCode), Status: resp.StatusCode}
	p.retryAfter = retryAfter(resp.Header)
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		p.Detail = "the answer could not be read: " + err.Error()
		return p
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind == "application/problem+json" && json.Unmarshal(body, p) == nil {
		p.Status = resp.StatusCode
		return p
	}
	p.Detail = printable(strings.TrimSpace(string(body[:min(len(body), 500)])))
	return p
}

// retryAfter reads the header in its form in seconds, the one that gateways send.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 || seconds > 24*60*60 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// transportError takes the URL out of an error, because its query can hold a credential.
func transportError(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("%s: %w", withoutQuery(e.URL), e.Err)
	}
	return err
}

func withoutQuery(text string) string {
	text, _, _ = strings.Cut(text, "?")
	if u, err := url.Parse(text); err == nil {
		return u.Redacted()
	}
	return text
}

// report prints an error with everything that is known about it.
func report(w io.Writer, err error) {
	text := err.Error()
	p, isAdmin := errors.AsType[*admin.ProblemDetails](err)
	if isAdmin {
		text = p.Title
		if p.Detail != "" {
			text += ": " + p.Detail
		}
	}
	fmt.Fprintln(w, "Error:", printable(text)) // there is nobody to tell when stderr is closed
	if isAdmin {
		for _, problem := range p.Problems {
			fmt.Fprintln(w, " ", printable(strings.TrimPrefix(problem.Path+": "+problem.Detail, ": ")))
		}
	}
}

// printable replaces control characters, so that nothing that comes from elsewhere can
// steer the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, text)
}
