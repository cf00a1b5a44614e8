package cli

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"
)

// event is one thing that a message API tells a reader, in whichever way it was read.
type event struct {
	Type     string          `json:"type"` // message or gap
	ID       string          `json:"id,omitempty"`
	Content  *string         `json:"content,omitempty"`
	Encoding string          `json:"encoding,omitempty"`
	Headers  json.RawMessage `json:"headers,omitempty"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
	// Comments are what an event stream tells about a message, as "name: value".
	Comments []string `json:"comments,omitempty"`
	Cursor   string   `json:"cursor,omitempty"`
	Reason   string   `json:"reason,omitempty"`
	Detail   string   `json:"detail,omitempty"`
}

const (
	typeMessage = "message"
	typeGap     = "gap"
)

// payload is the content as it was published.
func (e *event) payload() ([]byte, error) {
	switch {
	case e.Content == nil:
		return nil, nil
	case e.Encoding == "base64":
		raw, err := base64.StdEncoding.DecodeString(*e.Content)
		if err != nil {
			return nil, fmt.Errorf("a message is not the base64 that it is said to be: %w", err)
		}
		return raw, nil
	}
	return []byte(*e.Content), nil
}

// printer writes events: payloads, or with asJSON the events, one per line. Gaps go to
// errOut too.
type printer struct {
	out    *bufio.Writer
	errOut io.Writer
	asJSON bool
	// careful replaces control characters, because a person's terminal would obey them.
	careful bool
	// left is how many messages are still wanted; negative is without end.
	left int
}

func (p *printer) print(e *event) error {
	if e.Type == typeGap {
		p.note("gap (%s): %s", e.Reason, e.Detail)
	}
	if p.asJSON {
		return p.printJSON(e)
	}
	if e.Type != typeMessage {
		return nil
	}
	payload, err := e.payload()
	if err != nil {
		return err
	}
	if p.careful {
		payload = harmless(payload)
	}
	if _, err := p.out.Write(payload); err != nil {
		return err
	}
	return p.end()
}

func (p *printer) printJSON(e *event) error {
	raw, err := appendJSON(nil, e)
	if err != nil {
		return fmt.Errorf("an event can't be shown as JSON: %w", err)
	}
	if _, err := p.out.Write(raw); err != nil {
		return err
	}
	if e.Type != typeMessage {
		return p.out.WriteByte('\n')
	}
	return p.end()
}

// end ends the line of a message and counts it.
func (p *printer) end() error {
	if p.left > 0 {
		p.left--
	}
	return p.out.WriteByte('\n')
}

// enough says that no more messages are wanted.
func (p *printer) enough() bool { return p.left == 0 }

// note tells the user something that is no message.
func (p *printer) note(format string, args ...any) {
	fmt.Fprintln(p.errOut, printable(fmt.Sprintf(format, args...)))
}

// harmless is a payload as it can be shown on a terminal.
func harmless(payload []byte) []byte {
	if !utf8.Valid(payload) {
		return fmt.Appendf(nil, "(%d bytes that are no text: %s)", len(payload), base64.StdEncoding.EncodeToString(payload))
	}
	return []byte(printable(string(payload)))
}

// setContent sets the content of a message that came as it is.
func (e *event) setContent(raw []byte, binary bool) {
	text := string(raw)
	if binary && !utf8.Valid(raw) {
		text, e.Encoding = base64.StdEncoding.EncodeToString(raw), "base64"
	}
	e.Content = &text
}
