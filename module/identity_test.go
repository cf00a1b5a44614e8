package module

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/plans"
)

var version4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func testNames(t testing.TB) identityNames {
	t.Helper()
	n, err := newIdentityNames("x-gravitee-")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func requestWith(query string, headers http.Header) *http.Request {
	return &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/", RawQuery: query}, Header: headers}
}

func TestIdentityNames(t *testing.T) {
	n := testNames(t)
	if n.request != "X-Gravitee-Request-Id" || n.transaction != "X-Gravitee-Transaction-Id" || n.client != "X-Gravitee-Client-Identifier" {
		t.Errorf("names %+v", n)
	}
	for _, name := range []string{"x-gravitee-request-id", "X-GRAVITEE-TRANSACTION-ID", n.client} {
		if !n.is(name) {
			t.Errorf("%s is not known", name)
		}
	}
	if n.is("X-Gravitee-Request") || n.is("") {
		t.Error("takes other headers for an id")
	}
	for _, bad := range []string{"X Shop-", "X:", "ü-", "\n"} {
		if _, err := newIdentityNames(bad); err == nil || !strings.Contains(err.Error(), "headers_prefix") {
			t.Errorf("prefix %q: %v", bad, err)
		}
	}
}

func TestRequestIDs(t *testing.T) {
	n := testNames(t)
	r1, t1, err := n.ids(requestWith("", nil))
	if err != nil || !version4.MatchString(r1) || !version4.MatchString(t1) || r1 == t1 {
		t.Errorf("made %q and %q, %v", r1, t1, err)
	}
	r2, _, _ := n.ids(requestWith("a=b", nil))
	if r2 == r1 || !version4.MatchString(r2) {
		t.Errorf("made %q after %q", r2, r1)
	}
	r, tr, err := n.ids(requestWith("x-gravitee-Request-ID=q&X-Gravitee-Transaction-Id=qt", http.Header{n.request: {"h"}}))
	if err != nil || r != "h" || tr != "qt" {
		t.Errorf("the header does not win: %q %q %v", r, tr, err)
	}
	for name, req := range map[string]*http.Request{
		"two headers":                      requestWith("", http.Header{n.request: {"a", "b"}}),
		"two in the query":                 requestWith(n.request+"=a&"+n.request+"=b", nil),
		"two spellings":                    requestWith(n.request+"=a&x-gravitee-request-id=a", nil),
		"empty":                            requestWith(n.transaction+"=", nil),
		"too long":                         requestWith("", http.Header{n.request: {strings.Repeat("a", maxID+1)}}),
		"a bad header, not the good query": requestWith(n.request+"=good", http.Header{n.request: {"not good"}}),
	} {
		if _, _, err := n.ids(req); message.KindOf(err) != message.BadInput || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProvidedIdentifierComesByHeaderAlone(t *testing.T) {
	n := testNames(t)
	if got, err := n.provided(requestWith(n.client+"=me", nil).Header); got != "" || err != nil {
		t.Errorf("a link chose %q, %v", got, err)
	}
	if got, err := n.provided(http.Header{n.client: {"me"}}); got != "me" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := n.provided(http.Header{n.client: {"me", "you"}}); message.KindOf(err) != message.BadInput {
		t.Errorf("two: %v", err)
	}
}

// FuzzIdentityHeaders: whatever is accepted is 1 to 128 characters of visible ASCII, and
// is the same after it was a header.
func FuzzIdentityHeaders(f *testing.F) {
	f.Add("id", "X-Gravitee-Request-Id=q")
	f.Add("", "X-Gravitee-Request-Id=%0d%0aSet-Cookie:x")
	f.Add(" a", "x-gravitee-transaction-id=%ff")
	f.Add(strings.Repeat("~", 128), "%zz;=&&")
	f.Add("a\x7f", "")
	n := testNames(f)
	f.Fuzz(func(t *testing.T, header, query string) {
		for _, h := range []http.Header{nil, {n.request: {header}, n.transaction: {header}, n.client: {header}}} {
			request, transaction, err := n.ids(requestWith(query, h))
			if err != nil {
				if message.KindOf(err) != message.BadInput {
					t.Errorf("%v", err)
				}
				continue
			}
			client, err := n.provided(h)
			if err != nil || h == nil {
				client = "none"
			}
			for _, id := range []string{request, transaction, client} {
				if len(id) < 1 || len(id) > 128 || strings.ContainsFunc(id, func(r rune) bool { return r < '!' || r > '~' }) {
					t.Errorf("accepted %q", id)
				}
			}
			out := make(http.Header)
			id := entrypoints.Identity{RequestID: request, TransactionID: transaction, Client: client}
			n.setRequestHeaders(out, &id)
			n.setClientHeader(out, &id)
			sameOnTheWire(t, out)
		}
	})
}

func sameOnTheWire(t *testing.T, h http.Header) {
	t.Helper()
	var wire bytes.Buffer
	if err := h.Write(&wire); err != nil {
		t.Fatal(err)
	}
	wire.WriteString("\r\n")
	back, err := textproto.NewReader(bufio.NewReader(&wire)).ReadMIMEHeader()
	if err != nil || fmt.Sprint(http.Header(back)) != fmt.Sprint(h) {
		t.Errorf("%v came back as %v, %v", h, back, err)
	}
}

// brokerName is what every broker takes.
var brokerName = regexp.MustCompile(`^[A-Za-z0-9_-]{0,150}$`)

// FuzzBrokerSafe: two identifiers never share a name.
func FuzzBrokerSafe(f *testing.F) {
	f.Add("a.b", "a_b")
	f.Add("a.b", brokerSafe("a.b"))
	f.Add(strings.Repeat("a", 151), strings.Repeat("a", 152))
	f.Add(strings.Repeat("a", 150), strings.Repeat("a", 150)+".")
	f.Add("\xff", "\xfe")
	f.Add("ü", "__")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := brokerSafe(a), brokerSafe(b)
		for _, name := range []string{x, y} {
			if !brokerName.MatchString(name) {
				t.Errorf("%q and %q became %q and %q", a, b, x, y)
			}
		}
		if a != b && x == y {
			t.Errorf("%q and %q both became %q", a, b, x)
		}
		// What was made by us is an identifier like any other.
		if z := brokerSafe(x); x != a && z == x {
			t.Errorf("%q became %q, and so does %q itself", a, x, x)
		}
	})
}

func TestBrokerSafeKeepsWhatIsSafe(t *testing.T) {
	inferred := inferClient("203.0.113.7")
	for _, id := range []string{"job-7", "A_b", inferred, inferred + "-job-7", newID(), strings.Repeat("x", 150)} {
		if got := brokerSafe(id); got != id {
			t.Errorf("%s became %s", id, got)
		}
	}
	for _, id := range []string{"a.b", "a b", "ü", strings.Repeat("x", 151), inferred + "-" + strings.Repeat("é", 60)} {
		if got := brokerSafe(id); got == id || !brokerName.MatchString(got) || len(got) > 120 {
			t.Errorf("%s became %s", id, got)
		}
	}
}

func TestIdentitiesAreBounded(t *testing.T) {
	i := newIdentities()
	start := time.Now()
	for n := range maxIdentities {
		if err := i.admit("keyless", fmt.Sprint(n), start); err != nil {
			t.Fatalf("identity %d: %v", n, err)
		}
	}
	err := i.admit("keyless", "one more", start)
	var busy *message.Error
	if !errors.As(err, &busy) || busy.Kind != message.Busy || busy.RetryAfter <= 0 {
		t.Fatalf("one over the bound: %v", err)
	}
	if err := i.admit("keyless", "17", start); err != nil {
		t.Errorf("one that is known: %v", err)
	}
	if err := i.admit("another plan", "one more", start); err != nil {
		t.Errorf("another plan: %v", err)
	}
	// A use renews: at the end of a day only the one that was used is left.
	if err := i.admit("keyless", "17", start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := i.admit("keyless", "one more", start.Add(identityLife)); err == nil {
		t.Error("identities count for less than a day")
	}
	if err := i.admit("keyless", "one more", start.Add(identityLife+time.Second)); err != nil {
		t.Errorf("after a day: %v", err)
	}
	if n := len(i.seen["keyless"]); n != 2 {
		t.Errorf("%d are kept after a day", n)
	}
}

// A subscription is somebody who was let in, so that it does not count.
func TestIdentityNamesAtBrokers(t *testing.T) {
	u := testUnit("orders")
	named := testSession(t, u, nil, plans.Principal{API: "orders", Plan: "api_key", Subscription: "s"})
	named.identity.Client = "a.b"
	got, err := u.ids.name(named)
	if err != nil || !regexp.MustCompile(`^orders\.a_b-[0-9a-f]{16}$`).MatchString(got) {
		t.Errorf("%q, %v", got, err)
	}
	if len(u.ids.seen) != 0 {
		t.Errorf("subscriptions count: %v", u.ids.seen)
	}
	keyless := testSession(t, u, nil, plans.Principal{API: "orders", Plan: "keyless"})
	for n := range maxIdentities {
		keyless.identity.Client = fmt.Sprint("client-", n)
		if _, err := u.ids.name(keyless); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
	}
	keyless.identity.Client = "one-more"
	if name, err := u.ids.name(keyless); message.KindOf(err) != message.Busy {
		t.Errorf("one over the bound is %q, %v", name, err)
	}
}
