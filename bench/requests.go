//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
)

const (
	patience = 10 * time.Second
	warmUp   = 200 * time.Millisecond

	statusOK       = "HTTP/1.1 200 "
	statusAccepted = "HTTP/1.1 202 "
	acceptJSON     = "application/json"
)

func requestBenchmarks() []*benchmark {
	goals := []goal{{metric: rate, kind: ratioAtLeast, bound: 0.6}, forTheRecord(cpu)}
	return []*benchmark{
		{"mock/publish", "POST of 256 bytes to the mock beside Caddy's respond, 32 callers", "calls", goals, startPublish},
		{"mock/poll", "GET of the one message that waits beside Caddy's respond, 32 callers", "calls", goals,
			func(e *env) (*setup, error) { return startPoll(e, "message_count 1") }},
		{"mock/poll/backlog", "GET of one message of the hundreds that wait beside Caddy's respond, 32 callers", "calls",
			[]goal{forTheRecord(rate), forTheRecord(cpu)}, func(e *env) (*setup, error) { return startPoll(e) }},
	}
}

func startPublish(e *env) (*setup, error) {
	s, err := startServer(e.opt, "",
		api("/mock", "entrypoint http_post", "endpoint mock")+"\trespond /respond 202\n")
	if err != nil {
		return nil, err
	}
	post := func(path string) []byte {
		return load.Request(http.MethodPost, s.addr, path, "*/*", load.Content())
	}
	return &setup{close: s.Close, sides: []side{
		callers(s, "gateway", 32, post("/mock"), statusAccepted),
		callers(s, "respond", 32, post("/respond"), statusAccepted),
	}}, nil
}

// startPoll polls a message that is there already: with a cursor of the clock that all
// clients share, what has become due since is answered at once.
func startPoll(e *env, mock ...string) (*setup, error) {
	body := strings.Repeat("x", 120) // about what the gateway answers
	endpoint := "endpoint mock {\nmessage_interval 1ms\n" + strings.Join(mock, "\n") + "\n}"
	s, err := startServer(e.opt, "",
		api("/mock", "entrypoint http_get {", "qos none", "}", endpoint)+
			"\trespond /respond "+body+" 200\n")
	if err != nil {
		return nil, err
	}
	cursor, err := firstCursor(s, "/mock?limit=1")
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	get := func(path string) []byte { return load.Request(http.MethodGet, s.addr, path, acceptJSON, nil) }
	return &setup{close: s.Close, sides: []side{
		callers(s, "gateway", 32, get("/mock?limit=1&cursor="+cursor), statusOK),
		callers(s, "respond", 32, get("/respond"), statusOK),
	}}, nil
}

// firstCursor gets some messages and returns the cursor behind them, waiting until there
// are more.
func firstCursor(s *server, path string) (string, error) {
	body, err := load.Fetch(s.addr, load.Request(http.MethodGet, s.addr, path, acceptJSON, nil), statusOK, patience)
	if err != nil {
		return "", err
	}
	p, err := parsePage(body)
	if err != nil {
		return "", err
	}
	if p.Pagination.NextCursor == "" {
		return "", fmt.Errorf("there is no cursor in %s", body)
	}
	time.Sleep(warmUp) // the clock goes on
	return p.Pagination.NextCursor, nil
}

// page is what a GET answers, as far as it matters here.
type page struct {
	Items []struct {
		Content string `json:"content"`
	} `json:"items"`
	Gap        json.RawMessage `json:"gap"`
	Error      json.RawMessage `json:"error"`
	Pagination struct {
		NextCursor string `json:"nextCursor"`
	} `json:"pagination"`
}

func parsePage(body []byte) (*page, error) {
	p := new(page)
	if err := json.Unmarshal(body, p); err != nil {
		return nil, fmt.Errorf("the answer to GET: %w: %.500s", err, body)
	}
	if len(p.Gap) > 0 || len(p.Error) > 0 {
		return nil, fmt.Errorf("the answer to GET is not whole: %.500s", body)
	}
	return p, nil
}

// callers is a side that is called by so many clients.
func callers(s *server, name string, n int, request []byte, status string) side {
	return side{name, func(r *round) (one sample, err error) {
		before, err := s.Usage()
		if err != nil {
			return one, err
		}
		c, err := load.NewCallers(s.addr, n, request, status)
		if err != nil {
			return one, err
		}
		defer func() { err = errors.Join(err, c.Close(), s.quiet(before, n)) }()
		if _, err := c.Run(warmUp, patience); err != nil {
			return one, err
		}
		err = r.profiled(s, name, func() error {
			m, err := s.meter()
			if err != nil {
				return err
			}
			bytes := c.Bytes()
			took, err := c.Run(r.length(1500*time.Millisecond), patience)
			if err != nil {
				return err
			}
			if one, err = m.end(int64(len(took)), c.Bytes()-bytes); err != nil {
				return err
			}
			one.took(took)
			return nil
		})
		return one, err
	}}
}
