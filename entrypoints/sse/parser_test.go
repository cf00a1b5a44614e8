package sse

import (
	"strconv"
	"strings"
)

// event is what an EventSource dispatches.
type event struct{ id, name, data string }

// parsed is what a client makes of a stream.
type parsed struct {
	events   []event
	comments []string
	retry    []int
	// fields are the names of all fields that were seen, also unknown ones.
	fields map[string]int
	// rest is what stands after the last blank line.
	rest string
}

// parseStream is the algorithm of the HTML standard, §9.2.6, written from its text.
func parseStream(stream string) parsed {
	p := parsed{fields: make(map[string]int)}
	stream = strings.TrimPrefix(strings.ToValidUTF8(stream, "\ufffd"), "\ufeff")
	var data strings.Builder
	var name, id string
	for {
		end := strings.IndexAny(stream, "\r\n")
		if end < 0 {
			p.rest = stream
			return p
		}
		line := stream[:end]
		if strings.HasPrefix(stream[end:], "\r\n") {
			end++
		}
		stream = stream[end+1:]
		if line == "" {
			if data.Len() > 0 {
				if name == "" {
					name = "message"
				}
				p.events = append(p.events, event{id, name, strings.TrimSuffix(data.String(), "\n")})
			}
			data.Reset()
			name = ""
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		if field == "" {
			p.comments = append(p.comments, line)
			continue
		}
		p.fields[field]++
		switch field {
		case "event":
			name = value
		case "data":
			data.WriteString(value + "\n")
		case "id":
			if !strings.Contains(value, "\x00") {
				id = value
			}
		case "retry":
			if n, err := strconv.Atoi(value); err == nil {
				p.retry = append(p.retry, n)
			}
		}
	}
}
