package webhook

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// oneAnswer is a server that answers one request per connection, and closes it when another
// comes, as servers do whose idle connections end just then.
func oneAnswer(t testing.TB) (url string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				in := bufio.NewReader(conn)
				for answered := false; ; answered = true {
					r, err := http.ReadRequest(in)
					if err != nil || answered {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					if _, err := io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n"); err != nil {
						return
					}
				}
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

// A kept connection that turns out to be closed costs no attempt, unless a message must not be
// sent twice.
func TestClosedKeptConnections(t *testing.T) {
	for qos, want := range map[string]entrypoints.Outcome{"at_least_once": entrypoints.Delivered, "at_most_once": entrypoints.Unreachable} {
		t.Run(qos, func(t *testing.T) {
			e := localEntrypoint(t, `"allow_http":true`, `"qos":"`+qos+`"`)
			asked := `{"callback":"` + oneAnswer(t) + `"}`
			if first := try(t, e, asked); first.Outcome != entrypoints.Delivered {
				t.Fatalf("on a new connection: %+v", first)
			}
			if second := try(t, e, asked); second.Outcome != want || second.Number != 1 {
				t.Errorf("on the kept connection: %+v, want %s", second, want)
			}
		})
	}
}
