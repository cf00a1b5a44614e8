package cli_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/cli"
)

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "now", 999 * time.Millisecond: "now", -999 * time.Millisecond: "now",
		time.Second: "1s ago", 59 * time.Second: "59s ago", 90 * time.Second: "1m ago", 47*time.Hour + time.Minute: "47h ago",
		48 * time.Hour: "2d ago", 400 * 24 * time.Hour: "400d ago", -time.Minute: "in 1m", -36 * time.Hour: "in 36h",
	} {
		if got := cli.Ago(today, today.Add(-d)); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
	if got := cli.Ago(today, time.Time{}); got != "" {
		t.Errorf("never is %q", got)
	}
}

// Whatever a server sends, reading ends, and there are no more events than empty lines.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("retry: 3\n\nid: a\nevent: message\ndata: x\ndata\n:c: d\n\n:\n\n"))
	f.Add([]byte("data: a line that is longer than the buffer\r\n\r\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		if n := cli.CountEvents(stream); n > bytes.Count(stream, []byte("\n")) {
			t.Errorf("%d events in %q", n, stream)
		}
	})
}
