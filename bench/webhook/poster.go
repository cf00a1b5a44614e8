package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
)

// InFlight is how many requests are under way at a time, on both sides.
const InFlight = 64

// Key is what both sides sign with, Secret is how the gateway is told.
var (
	Key    = []byte("a key of thirty-two characters..")
	Secret = "whsec_" + base64.StdEncoding.EncodeToString(Key)
)

// timeout is the gateway's default.
const timeout = 10 * time.Second

// Content is a message of so many bytes.
func Content(size int) []byte {
	return bytes.Repeat(load.Content(), (size+load.Size-1)/load.Size)[:size]
}

// Poster sends messages as the Standard Webhooks specification says, with net/http.
type Poster struct {
	client *http.Client
	url    string
}

// NewPoster makes a poster to a receiver.
func NewPoster(addr string) *Poster {
	transport := &http.Transport{MaxIdleConnsPerHost: InFlight}
	return &Poster{&http.Client{Transport: transport, Timeout: timeout}, "http://" + addr + "/"}
}

// Close ends its connections.
func (p *Poster) Close() { p.client.CloseIdleConnections() }

// Post sends one message and returns nil after a 2xx.
func (p *Poster) Post(ctx context.Context, id string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, Key)
	_, _ = mac.Write([]byte(id + "." + at + "."))
	_, _ = mac.Write(body)
	r.Header.Set("Content-Type", "text/plain")
	r.Header.Set("Webhook-Id", id)
	r.Header.Set("Webhook-Timestamp", at)
	r.Header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	resp, err := p.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the receiver answers %s", resp.Status)
	}
	return nil
}

// Loop is a plain loop that runs.
type Loop struct {
	mu   sync.Mutex
	stop func() error // nil when none runs
}

// Start begins one. run reads and posts until its context ends, and returns nil then.
func (l *Loop) Start(run func(context.Context) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stop != nil {
		return fmt.Errorf("a loop runs already")
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	l.stop = func() error {
		cancel()
		return <-done
	}
	return nil
}

// Stop ends it, and returns what it could not do.
func (l *Loop) Stop() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stop == nil {
		return fmt.Errorf("no loop runs")
	}
	err := l.stop()
	l.stop = nil
	return err
}
