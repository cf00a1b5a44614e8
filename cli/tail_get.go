package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// page is what http_get answers in JSON.
type page struct {
	Items []event `json:"items"`
	Gap   *gapAt  `json:"gap"`
	Gaps  []gapAt `json:"gaps"`
	Error *struct {
		Type   string `json:"type"`
		Detail string `json:"detail"`
	} `json:"error"`
	Pagination struct {
		NextCursor string `json:"nextCursor"`
	} `json:"pagination"`
}

// gapAt is a gap and the index of the item before which it lies.
type gapAt struct {
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	Before int    `json:"before"`
}

// maxPage is more than a page of the gateway can be: 16 MiB of contents, escaped.
const maxPage = 256 << 20

// emptyPause is how often to ask at least, when an API answers at once that it has nothing.
const emptyPause = time.Second

// readPages reads one GET after the other. Its errors do not end it, but that of the first.
func (tl *tail) readPages(ctx context.Context) error {
	for first := true; ; first = false {
		began := time.Now()
		p, err := tl.readPage(ctx)
		if err != nil {
			pr, isProblem := errors.AsType[*problem](err)
			if first || isProblem && pr.Status < 500 && !pr.temporary() {
				return err
			}
			return &ended{reason: err.Error(), again: true}
		}
		if err := tl.takePage(p); err != nil || tl.enough() {
			return err
		}
		if p.Error != nil {
			pr := problem{Type: p.Error.Type}
			return &ended{reason: "reading failed: " + pr.slug() + ": " + p.Error.Detail, again: true}
		}
		if rest := emptyPause - time.Since(began); len(p.Items) == 0 && rest > 0 {
			if err := pause(ctx, rest); err != nil {
				return nil
			}
		}
	}
}

func (tl *tail) readPage(ctx context.Context) (*page, error) {
	u := tl.address(tl.cursor)
	if tl.left > 0 {
		q := u.Query()
		q.Set("limit", strconv.Itoa(tl.left))
		u.RawQuery = q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, transportError(err)
	}
	req.Header = tl.header.Clone()
	req.Header.Set("Accept", "application/json")
	resp, hangUp, err := tl.open(req, tl.patience)
	if err != nil {
		return nil, err
	}
	defer hangUp()
	if resp.StatusCode != http.StatusOK {
		return nil, problemOf(resp)
	}
	p := new(page)
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxPage)).Decode(p); err != nil {
		return nil, fmt.Errorf("%s does not answer with a page of messages: %w", withoutQuery(tl.url.String()), err)
	}
	return p, nil
}

// takePage prints a page, with its gaps where they belong, and remembers where to go on.
func (tl *tail) takePage(p *page) error {
	gaps := p.Gaps
	if len(gaps) == 0 && p.Gap != nil {
		gaps = []gapAt{*p.Gap}
	}
	for i := range p.Items {
		for ; len(gaps) > 0 && gaps[0].Before <= i; gaps = gaps[1:] {
			if err := tl.deliver(&event{Type: typeGap, Reason: gaps[0].Reason, Detail: gaps[0].Detail}); err != nil {
				return err
			}
		}
		p.Items[i].Type = typeMessage
		if err := tl.deliver(&p.Items[i]); err != nil {
			return err
		}
	}
	for _, gap := range gaps {
		if err := tl.deliver(&event{Type: typeGap, Reason: gap.Reason, Detail: gap.Detail}); err != nil {
			return err
		}
	}
	if p.Pagination.NextCursor == "" && !tl.tracked {
		tl.tracked = true // said once
		tl.note("this API gives no cursor: unless the broker keeps track of this client, what comes between two requests is missed")
	}
	tl.cursor = p.Pagination.NextCursor
	return tl.flush()
}
