package envelope

import (
	"bytes"
	"net/http"
	"net/url"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testID = "msg_ABCDEFGHIJKLMNOPQRSTUVWXYZ"

var testTime = time.Unix(1795000000, 123456789)

func testSecret(n byte) Secret { return bytes.Repeat([]byte{n}, 32) }

func mustURL(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func mustNew(t testing.TB, opt Options) *Envelope {
	t.Helper()
	e, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// request makes a request of m, and checks what holds for all of them.
func request(t testing.TB, opt Options, m *message.Message) *http.Request {
	t.Helper()
	r, err := mustNew(t, opt).Request(t.Context(), mustURL(t, "https://example.com/hook"), &message.Delivery{Message: m}, testID, 3, testTime)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// headersOf makes headers of pairs.
func headersOf(pairs ...string) (all []message.Header) {
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, message.Header{Name: pairs[i], Value: pairs[i+1]})
	}
	return all
}
