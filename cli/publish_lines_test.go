package cli_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// contents are all lines that were sent, in order.
func (s *postServer) contents() []string {
	var all []string
	for _, g := range s.seen() {
		for _, line := range strings.Split(strings.TrimSuffix(g.body, "\n"), "\n") {
			text, _ := strings.CutPrefix(line, `{"content":"`)
			all = append(all, strings.TrimSuffix(text, `"}`))
		}
	}
	return all
}

func numbers(n int) (input string, lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprint("line ", i))
	}
	return strings.Join(lines, "\n"), lines
}

func TestPublishLines(t *testing.T) {
	s := newPostServer(t, items(202, stored))
	input, lines := numbers(2345)
	r := call{args: []string{"publish", s.URL, "--lines"}, stdin: input}.run(t)
	if r.failed != nil || r.out != "published 2345 messages\n" || r.err != "" {
		t.Fatalf("%+v", r)
	}
	if got := s.contents(); strings.Join(got, "\n") != strings.Join(lines, "\n") {
		t.Errorf("sent %d lines", len(got))
	}
	if n := len(s.seen()); n > 200 { // each has 500 at most, and what was ready
		t.Errorf("%d requests for 2345 lines", n)
	}
}

func TestPublishLinesJSONAndEmptyOnes(t *testing.T) {
	s := newPostServer(t, items(202, stored))
	r := call{args: []string{"publish", s.URL, "-", "--lines", "--json"}, stdin: "a\r\n\nb\n"}.run(t)
	want := `{"line":1,"status":202,"id":"id-a"}` + "\n" + `{"line":3,"status":202,"id":"id-b"}` + "\n"
	if r.failed != nil || r.out != want {
		t.Errorf("%+v", r)
	}
}

// Slow input is published as it comes.
func TestPublishLinesFollows(t *testing.T) {
	s := newPostServer(t, items(202, stored))
	in, w := io.Pipe()
	p := call{args: []string{"publish", s.URL, "--lines", "--json"}, in: in}.start(t)
	for i := range 3 {
		if _, err := fmt.Fprintf(w, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
		p.sees(t, p.out, fmt.Sprintf(`"id-line %d"`, i))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if r := p.wait(t); r.failed != nil {
		t.Errorf("%+v", r)
	}
}

func TestPublishLinesInterrupted(t *testing.T) {
	s := newPostServer(t, items(202, stored))
	in, w := io.Pipe()
	p := call{args: []string{"publish", s.URL, "--lines", "--json"}, in: in}.start(t)
	if _, err := io.WriteString(w, "a\n"); err != nil {
		t.Fatal(err)
	}
	p.sees(t, p.out, "id-a")
	r := p.interrupt(t)
	if r.failed == nil || r.err != "Error: interrupted after published 1 message\n" {
		t.Errorf("%+v", r)
	}
	_ = w.Close() // lets the reading goroutine go
}

// A tail that was over a limit is sent again: nothing is lost, doubled, or out of order.
func TestPublishLinesOverALimit(t *testing.T) {
	t.Parallel()
	var published []string
	refusing, refused := false, false
	s := newPostServer(t, items(207, func(i int, content string) string {
		refusing = refusing && i > 0 // until the end of the request
		if content == "line 5" && !refused {
			refusing, refused = true, true
		}
		if refusing {
			return `{"status":429,"type":"urn:message-api:problem:busy","detail":"over publish_rate"}`
		}
		published = append(published, content)
		return stored(i, content)
	}))
	input, lines := numbers(10)
	r := call{args: []string{"publish", s.URL, "--lines"}, stdin: input}.run(t)
	if r.failed != nil || r.out != "published 10 messages\n" || !strings.Contains(r.err, "over publish_rate; trying again in 1s") {
		t.Errorf("%+v", r)
	}
	if strings.Join(published, ",") != strings.Join(lines, ",") {
		t.Errorf("published %q", published)
	}
}

func TestPublishLinesReportsEach(t *testing.T) {
	s := newPostServer(t, items(207, func(i int, content string) string {
		if content == "b" {
			return `{"status":413,"type":"urn:message-api:problem:too-large","detail":"too long"}`
		}
		return stored(i, content)
	}))
	r := call{args: []string{"publish", s.URL, "--lines"}, stdin: "a\n\nb\nc\n"}.run(t)
	if r.failed == nil || r.err != "line 3: too-large (413): too long\nError: 1 of 3 messages were not published\n" || r.out != "published 2 messages\n" {
		t.Errorf("%+v", r)
	}
}

// What can't go on says how far it came.
func TestPublishLinesStops(t *testing.T) {
	for _, c := range []struct {
		answers []http.HandlerFunc
		want    string
	}{
		{[]http.HandlerFunc{refuse(401, "unauthorized", "no")}, "Error: stopped after published 0 messages: line 1: unauthorized (401): no\n"},
		{[]http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }}, "the message may be stored"},
		{[]http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(202); fmt.Fprint(w, `{"items":[]}`) }}, "the answer tells of 0 messages"},
	} {
		s := newPostServer(t, c.answers...)
		if r := (call{args: []string{"publish", s.URL, "--lines"}, stdin: "a\nb\n"}).run(t); r.failed == nil || !strings.Contains(r.err, c.want) {
			t.Errorf("%+v, want %q", r, c.want)
		}
	}
}
