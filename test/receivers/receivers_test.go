package receivers

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/envelope"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// payload is one kind of content.
type payload struct {
	name string
	body []byte
	// text: it is UTF-8, as the libraries for Python and JavaScript want it.
	text bool
	// tombstone: there is no content at all.
	tombstone bool
	headers   []message.Header
}

func payloads(t testing.TB) []payload {
	t.Helper()
	random := make([]byte, 64<<10)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(random)
	large := make([]byte, 1<<20)
	_, _ = source.Read(large)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := io.WriteString(z, strings.Repeat(`{"order":17}`, 1000))
	if err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	kind := func(value string) []message.Header {
		return []message.Header{{Name: "content-type", Value: value}}
	}
	return []payload{
		{name: "empty", text: true},
		{name: "tombstone", text: true, tombstone: true},
		{name: "text", body: []byte("it's me\r\nand nobody else\n"), text: true, headers: kind("text/plain; charset=utf-8")},
		{name: "JSON", body: []byte(`{"type": "order.created", "data": {"id": 17}}`), text: true, headers: kind("application/json")},
		{name: "JSON with blanks around", body: []byte("  {\"a\": 1.0}\n\n"), text: true, headers: kind("application/json")},
		{name: "UTF-8", body: []byte("Grüße, 世界, 😀, \u2028"), text: true, headers: kind("text/plain")},
		{name: "UTF-8 with BOM", body: []byte("\ufeff{\"a\":1}"), text: true, headers: kind("application/json")},
		{name: "zeros", body: []byte("a\x00b\x00\x00"), text: true},
		{name: "1 MiB of text", body: bytes.Repeat([]byte("0123456789abcdef"), 1<<16), text: true},
		{name: "1 MiB of bytes", body: large},
		{name: "bytes", body: random},
		{name: "invalid UTF-8", body: []byte("gr\xfc\xdfe \xc3\x28 \xed\xa0\x80")},
		{name: "UTF-16", body: []byte("\xff\xfeh\x00i\x00"), headers: kind("text/plain; charset=utf-16")},
		{name: "gzip", body: zipped.Bytes(), headers: append(kind("application/json"), message.Header{Name: "content-encoding", Value: "gzip"})},
	}
}

// languages are the receivers. helps tells whether their library takes only UTF-8.
func languages(t *testing.T, f func(t *testing.T, start func(t testing.TB, secret string) *Receiver, helps bool)) {
	for _, l := range []struct {
		name  string
		start func(t testing.TB, secret string) *Receiver
		helps bool
	}{{"Go", StartGo, false}, {"Python", StartPython, true}, {"Node", StartNode, true}} {
		t.Run(l.name, func(t *testing.T) {
			if testing.Short() && l.helps {
				t.Skip("NOT RUN in short: it needs more than Go")
			}
			t.Parallel()
			f(t, l.start, l.helps)
		})
	}
}

// sender sends what an envelope makes.
type sender struct {
	t        *testing.T
	client   *http.Client
	receiver *Receiver
	envelope *envelope.Envelope
	sent     int
}

func newSender(t *testing.T, r *Receiver, secrets ...string) *sender {
	t.Helper()
	opt := envelope.Options{API: "orders"}
	for _, text := range secrets {
		secret, err := envelope.ParseSecret(text)
		if err != nil {
			t.Fatal(err)
		}
		opt.Secrets = append(opt.Secrets, secret)
	}
	e, err := envelope.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &sender{t: t, client: &http.Client{Transport: transport}, receiver: r, envelope: e}
}

// send sends a request at the time now, changed by change, and returns what was received.
func (s *sender) send(p payload, now time.Time, change func(*http.Request)) Received {
	s.t.Helper()
	callback, err := url.Parse(s.receiver.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	s.sent++
	m := &message.Message{Payload: p.body, Headers: p.headers}
	if p.tombstone {
		m.Metadata = []message.Field{message.Flag(message.TombstoneField, true)}
	}
	id := fmt.Sprintf("msg_%d", s.sent)
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	req, err := s.envelope.Request(ctx, callback, &message.Delivery{Message: m}, id, 1, now)
	if err != nil {
		s.t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	res, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = res.Body.Close()
	got, err := s.receiver.Next(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	if want := map[bool]int{true: 204, false: 401}[got.Verified]; res.StatusCode != want {
		s.t.Errorf("answered %d, want %d", res.StatusCode, want)
	}
	return got
}

func TestOfficialLibrariesVerifyEveryPayload(t *testing.T) {
	fresh, old := envelope.NewSecret(), envelope.NewSecret()
	languages(t, func(t *testing.T, start func(testing.TB, string) *Receiver, helps bool) {
		for _, c := range []struct {
			name    string
			secrets []string
			knows   string
		}{
			{"one secret", []string{fresh}, fresh},
			{"two secrets, the receiver knows the new one", []string{fresh, old}, fresh},
			{"two secrets, the receiver knows the old one", []string{fresh, old}, old},
		} {
			t.Run(c.name, func(t *testing.T) {
				s := newSender(t, start(t, c.knows), c.secrets...)
				for _, p := range payloads(t) {
					got := s.send(p, time.Now(), nil)
					if !got.Verified || got.Error != "" {
						t.Errorf("%s: not verified: %s", p.name, got.Error)
					}
					// What the library can do alone it has done alone.
					if want := helps && !p.text; got.Helped != want {
						t.Errorf("%s: helped = %v, want %v", p.name, got.Helped, want)
					}
					if !bytes.Equal(got.Body, p.body) {
						t.Errorf("%s: %d bytes came, and %d were sent", p.name, len(got.Body), len(p.body))
					}
					if want := fmt.Sprintf("msg_%d", s.sent); got.ID != want {
						t.Errorf("%s: came as %q, want %q", p.name, got.ID, want)
					}
					if tombstone := got.Headers.Get("webhook-tombstone") == "true"; tombstone != p.tombstone {
						t.Errorf("%s: tombstone = %v", p.name, tombstone)
					}
					if got.Headers.Get("webhook-attempt") != "1" || got.Headers.Get("User-Agent") != envelope.DefaultUserAgent {
						t.Errorf("%s: headers %v", p.name, got.Headers)
					}
				}
			})
		}
	})
}

func TestOfficialLibrariesRefuseWhatWasChanged(t *testing.T) {
	fresh, old, foreign := envelope.NewSecret(), envelope.NewSecret(), envelope.NewSecret()
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	languages(t, func(t *testing.T, start func(testing.TB, string) *Receiver, _ bool) {
		s := newSender(t, start(t, fresh), fresh, old)
		strange := newSender(t, s.receiver, old, foreign)
		unsigned := newSender(t, s.receiver)
		p := payload{body: []byte(`{"amount": 100}`)}
		binary := payload{body: []byte("\xff\xfe\x00\x01")}
		for _, c := range []struct {
			name   string
			by     *sender
			p      payload
			at     time.Time
			change func(*http.Request)
		}{
			{"the body", s, p, time.Now(), body([]byte(`{"amount": 900}`))},
			{"a byte of a binary body", s, binary, time.Now(), body([]byte("\xff\xfe\x00\x02"))},
			{"a blank more", s, p, time.Now(), body([]byte(`{"amount": 100} `))},
			{"the id", s, p, time.Now(), set("webhook-id", "msg_other")},
			{"the timestamp", s, p, time.Now(), set("webhook-timestamp", fmt.Sprint(time.Now().Unix()+1))},
			{"no id", s, p, time.Now(), set("webhook-id", "")},
			{"the signature", s, p, time.Now(), set("webhook-signature", "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=")},
			{"the version", s, p, time.Now(), func(r *http.Request) {
				r.Header.Set("webhook-signature", strings.ReplaceAll(r.Header.Get("webhook-signature"), "v1,", "v2,"))
			}},
			{"it is replayed", s, p, time.Now().Add(-6 * time.Minute), nil},
			{"it is of the future", s, p, time.Now().Add(6 * time.Minute), nil},
			{"others' secrets", strange, p, time.Now(), nil},
			{"no secret at all", unsigned, p, time.Now(), nil},
		} {
			c.by.sent = s.sent
			if got := c.by.send(c.p, c.at, c.change); got.Verified || got.Error == "" {
				t.Errorf("%s: verified all the same (%+v)", c.name, got)
			}
		}
		if got := s.send(p, time.Now(), nil); !got.Verified {
			t.Errorf("what was not changed: %s", got.Error)
		}
	})
}

func body(b []byte) func(*http.Request) {
	return func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	}
}

// A receiver that is not installed fails the test, or skips it where that is wished.
func TestMissingReceiverIsTold(t *testing.T) {
	t.Setenv("MESSAGE_API_RECEIVERS", t.TempDir())
	for _, f := range []foreign{python, node} {
		if _, _, err := f.find(); err == nil || !strings.Contains(err.Error(), "not installed") {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}

// The folders are named after the versions that scripts/receivers.sh installs.
func TestVersionsAreOne(t *testing.T) {
	for _, c := range []struct{ file, wants, library string }{
		{"python/requirements.txt", "standardwebhooks==%s ", python.library},
		{"node/package.json", `"standardwebhooks": "%s"`, node.library},
		{"node/package-lock.json", `"standardwebhooks": "%s"`, node.library},
	} {
		text, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		folder, _, _ := strings.Cut(c.library, "/")
		_, version, _ := strings.Cut(folder, "-")
		if want := fmt.Sprintf(c.wants, version); !strings.Contains(string(text), want) {
			t.Errorf("%s does not say %s", c.file, want)
		}
	}
}
