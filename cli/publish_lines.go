package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"unicode/utf8"
)

const (
	// A batch is what the gateway publishes in one part.
	batchLines = 500
	batchBytes = 1 << 20
	// maxLine bounds a line: the gateway's own bound can't be set higher than 1 GiB.
	maxLine = 64 << 20
)

// append appends the envelope around a content, as a line.
func (e *envelope) append(dst, content []byte) ([]byte, error) {
	line := *e
	line.Content, line.Encoding = string(content), ""
	if !utf8.Valid(content) {
		line.Content, line.Encoding = base64.StdEncoding.EncodeToString(content), "base64"
	}
	raw, err := json.Marshal(&line)
	if err != nil {
		return dst, fmt.Errorf("encoding a message: %w", err)
	}
	return append(append(dst, raw...), '\n'), nil
}

// numbered is a line of the input, ready to be sent.
type numbered struct {
	number int
	raw    []byte
}

// tally counts what became of the lines.
type tally struct{ published, failed int }

// publishLines publishes every line. A batch is what has been read when the one before it
// was answered, so that slow input is published line by line and fast input in bulk.
func (p *publish) publishLines(ctx context.Context, source io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines, readErr := p.readLines(ctx, source)
	var sum tally
	for batch := range batches(ctx, lines) {
		if err := p.publishBatch(ctx, batch, &sum); err != nil {
			return fmt.Errorf("stopped after %s: %w", sum, err)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("interrupted after %s", sum)
	}
	if err := <-readErr; err != nil {
		return fmt.Errorf("reading the input, after %s: %w", sum, err)
	}
	if !p.quiet && !p.json {
		if _, err := fmt.Fprintln(p.out, sum); err != nil {
			return err
		}
	}
	if sum.failed > 0 {
		return fmt.Errorf("%d of %d messages were not published", sum.failed, sum.failed+sum.published)
	}
	return nil
}

func (s tally) String() string {
	if s.published == 1 {
		return "published 1 message"
	}
	return fmt.Sprintf("published %d messages", s.published)
}

// readLines reads in a goroutine of its own, because the input may come slowly.
func (p *publish) readLines(ctx context.Context, source io.Reader) (<-chan numbered, <-chan error) {
	lines, failed := make(chan numbered, batchLines), make(chan error, 1)
	go func() {
		defer close(lines)
		failed <- p.scan(ctx, source, lines)
	}()
	return lines, failed
}

func (p *publish) scan(ctx context.Context, source io.Reader, lines chan<- numbered) error {
	scanner := bufio.NewScanner(source)
	scanner.Buffer(make([]byte, 64<<10), maxLine)
	n := 0
	for scanner.Scan() {
		n++
		content := scanner.Bytes()
		if len(content) == 0 {
			continue
		}
		raw, err := p.envelope.append(nil, content)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		select {
		case lines <- numbered{n, raw}:
		case <-ctx.Done():
			return nil
		}
	}
	if errors.Is(scanner.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("line %d is longer than %d MiB", n+1, maxLine>>20)
	}
	return scanner.Err()
}

// batches yields what can be read without waiting, and waits only for the first line.
func batches(ctx context.Context, lines <-chan numbered) func(yield func([]numbered) bool) {
	return func(yield func([]numbered) bool) {
		for {
			var batch []numbered
			select {
			case <-ctx.Done():
				return
			case line, ok := <-lines:
				if !ok {
					return
				}
				batch = append(batch, line)
			}
			for size := len(batch[0].raw); len(batch) < batchLines && size < batchBytes; {
				line, ok := ready(lines)
				if !ok {
					break
				}
				batch, size = append(batch, line), size+len(line.raw)
			}
			if !yield(batch) {
				return
			}
		}
	}
}

func ready(lines <-chan numbered) (numbered, bool) {
	select {
	case line, ok := <-lines:
		return line, ok
	default:
		return numbered{}, false
	}
}

// publishBatch publishes lines, those at the end of a batch that the gateway can't take for
// the moment again.
func (p *publish) publishBatch(ctx context.Context, batch []numbered, sum *tally) error {
	err := p.insist(ctx, true, func() (progress bool, err error) {
		var body bytes.Buffer
		for i := range batch {
			body.Write(batch[i].raw)
		}
		items, err := p.post(ctx, ndjson, io.NopCloser(&body), int64(body.Len()))
		if err != nil {
			return false, err
		}
		if len(items) > len(batch) || len(items) == 0 {
			return false, fmt.Errorf("the answer tells of %d messages, and %d were sent", len(items), len(batch))
		}
		done := settled(items)
		if err := p.tellBatch(batch[:done], items[:done], sum); err != nil {
			return false, err
		}
		rest := batch[done:]
		switch {
		case done < len(items):
			err = items[done].problem()
		case done < len(batch):
			err = fmt.Errorf("the gateway did not take a batch to its end, line %d and what follows", batch[done].number)
		}
		batch = rest
		return done > 0, err
	})
	if err != nil && len(batch) > 0 {
		return fmt.Errorf("line %d: %w", batch[0].number, err)
	}
	return err
}

// settled is how many items are decided about: all but a tail of those that the gateway
// can't take for the moment. Only a tail can be sent again without changing the order.
func settled(items []item) int {
	n := len(items)
	for n > 0 && (items[n-1].Status == http.StatusTooManyRequests || items[n-1].Status == http.StatusServiceUnavailable) {
		n--
	}
	return n
}

func (p *publish) tellBatch(batch []numbered, items []item, sum *tally) error {
	for i := range items {
		if err := items[i].problem(); err != nil {
			sum.failed++
			fmt.Fprintf(p.errOut, "line %d: %s\n", batch[i].number, printable(err.Error()))
		} else {
			sum.published++
		}
		if err := p.tell(items[i], batch[i].number); err != nil {
			return err
		}
	}
	return nil
}
