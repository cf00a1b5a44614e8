package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// readSSE reads one event stream. After the first one it continues by Last-Event-ID.
func (tl *tail) readSSE(ctx context.Context) error {
	// In the query a cursor that is none is an error, which is right for the user's.
	query, id := tl.cursor, ""
	if tl.cursor != tl.begin {
		query, id = "", tl.cursor
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, tl.address(query).String(), nil)
	if err != nil {
		return transportError(err)
	}
	req.Header = tl.header.Clone()
	req.Header.Set("Accept", "text/event-stream")
	if id != "" {
		req.Header.Set("Last-Event-ID", id)
	}
	resp, hangUp, err := tl.open(req, tl.timeout)
	if err != nil {
		return err
	}
	defer hangUp()
	if resp.StatusCode != http.StatusOK {
		return problemOf(resp)
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "text/event-stream" {
		return fmt.Errorf("%s answers with %q and no event stream: is it the URL of a message API?", withoutQuery(tl.url.String()), kind)
	}
	return tl.readEvents(resp.Body)
}

func (tl *tail) readEvents(body io.Reader) error {
	in := &eventReader{r: bufio.NewReaderSize(body, 64<<10)}
	for {
		ev, err := in.next()
		if in.retry > 0 {
			tl.retry = in.retry
		}
		if err != nil {
			return &ended{reason: "the connection was lost: " + lostText(err), again: !errors.Is(err, errTooLong)}
		}
		if end, err := tl.take(ev); end || err != nil {
			return err
		}
		if in.r.Buffered() == 0 {
			if err := tl.flush(); err != nil {
				return err
			}
		}
	}
}

func lostText(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the other side closed it"
	}
	return err.Error()
}

// take handles one event, and says whether there were enough.
func (tl *tail) take(ev streamEvent) (enough bool, err error) {
	var about struct{ Reason, Detail, Type string }
	switch ev.name {
	case "gap", "goaway", "error":
		if err := json.Unmarshal([]byte(ev.data), &about); err != nil {
			about.Detail = ev.data
		}
	}
	switch ev.name {
	case "message", "message-base64":
		e := &event{Type: typeMessage, Content: &ev.data, Cursor: ev.id, Comments: ev.comments}
		if ev.name == "message-base64" {
			e.Encoding = "base64"
		}
		if err := tl.deliver(e); err != nil {
			return false, err
		}
		return tl.enough(), nil
	case "gap":
		return false, tl.deliver(&event{Type: typeGap, Reason: about.Reason, Detail: about.Detail})
	case "goaway":
		return false, goaway(about.Reason, about.Detail, ev.retry > 0, ev.retry)
	case "error":
		p := problem{Type: about.Type}
		return false, &ended{reason: "reading failed: " + p.slug() + ": " + about.Detail, again: true, wait: ev.retry}
	}
	return false, nil // of a later version
}

// goaway is how a connection ends that the gateway ends.
func goaway(reason, detail string, again bool, wait time.Duration) error {
	text := "the gateway ended the session (" + reason + ")"
	if detail != "" {
		text += ": " + detail
	}
	return &ended{reason: text, again: again, wait: wait}
}

// streamEvent is one Server-Sent Event.
type streamEvent struct {
	name, data, id string
	retry          time.Duration // 0: none stood with it
	comments       []string
}

// eventReader parses an event stream (WHATWG HTML, §9.2).
type eventReader struct {
	r     *bufio.Reader
	size  int
	retry time.Duration // the last one
}

// maxEvent bounds the memory that one event can take.
const maxEvent = 256 << 20

var errTooLong = fmt.Errorf("an event is longer than %d MiB", maxEvent>>20)

// next reads up to the next event that has data. What comes before, such as the comments of
// heartbeats, is no event.
func (er *eventReader) next() (streamEvent, error) {
	var ev streamEvent
	var data []byte
	hasData := false
	er.size = 0
	for {
		line, err := er.line()
		if err != nil {
			return ev, err
		}
		if len(line) == 0 {
			if !hasData {
				ev, er.size = streamEvent{}, 0
				continue
			}
			ev.data = string(data)
			if ev.name == "" {
				ev.name = "message"
			}
			return ev, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "":
			ev.comments = append(ev.comments, string(bytes.TrimPrefix(line, []byte(":"))))
		case "data":
			if hasData {
				data = append(data, '\n')
			}
			data, hasData = append(data, value...), true
		case "event":
			ev.name = string(value)
		case "id":
			if !bytes.ContainsRune(value, 0) {
				ev.id = string(value)
			}
		case "retry":
			if ms, err := strconv.Atoi(string(value)); err == nil && ms > 0 && ms <= int(time.Hour/time.Millisecond) {
				ev.retry = time.Duration(ms) * time.Millisecond
				er.retry = ev.retry
			}
		}
	}
}

// line reads a line without its end. The gateway ends lines with LF; CR LF may come from
// elsewhere.
func (er *eventReader) line() ([]byte, error) {
	var whole []byte
	for {
		part, err := er.r.ReadSlice('\n')
		if er.size += len(part); er.size > maxEvent {
			return nil, errTooLong
		}
		if err == nil && whole == nil {
			return trimEnd(part), nil
		}
		whole = append(whole, part...)
		if err == nil {
			return trimEnd(whole), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

func trimEnd(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}
