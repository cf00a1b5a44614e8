package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

const ticking = `
	entrypoint http_get {
		duration_limit 10ms
	}
	entrypoint sse
	entrypoint websocket
	endpoint mock {
		message_interval 50ms
	}
`

// Whatever is withdrawn ends the streams that stood on it, within a second and with the
// reason, and no other stream; no new one begins.
func TestWhatIsWithdrawnEndsItsStreams(t *testing.T) {
	g := gateway.Start(t, "", site(
		api("/orders", ticking+jwtPlan+"plan api_key {\n validation auto\n}\n"),
		api("/other", ticking+"plan api_key {\n validation auto\n}\n"),
	))
	o := operator(t, g)
	ctx := context.Background()
	bystander := o.subscribe("other", "api_key", "")
	quiet := gateway.OpenEvents(t, http.DefaultClient, g.URL("/other"), keyHeader, bystander.NewKey.Secret)
	quiet.MustMessage(t)
	for _, tc := range []struct {
		name     string
		withdraw func(s admin.Subscription) error
		reason   string
		status   int
		restore  func() error
	}{
		{"key revoked", func(s admin.Subscription) error {
			_, err := o.RevokeKey(ctx, s.NewKey.ID, admin.Write{Reason: "leaked"})
			return err
		}, "revoked", 401, nil},
		{"key expires", func(s admin.Subscription) error {
			_, err := o.ExpireKey(ctx, s.NewKey.ID, time.Now().Add(300*time.Millisecond), "")
			return err
		}, "expired", 401, nil},
		{"subscription paused", func(s admin.Subscription) error {
			_, err := o.Pause(ctx, s.ID, admin.Write{})
			return err
		}, "revoked", 403, nil},
		{"subscription closed", func(s admin.Subscription) error {
			_, err := o.CloseSubscription(ctx, s.ID, admin.Write{})
			return err
		}, "revoked", 401, nil},
		{"subscription ends", func(s admin.Subscription) error {
			_, err := o.UpdateSubscription(ctx, s.ID, admin.SubscriptionPatch{Ends: admin.Some(time.Now().Add(300 * time.Millisecond))}, "")
			return err
		}, "expired", 401, nil},
		{"application archived", func(s admin.Subscription) error {
			_, err := o.ArchiveApplication(ctx, s.Application, admin.Write{})
			return err
		}, "revoked", 401, nil},
		{"API stopped", func(admin.Subscription) error {
			_, err := o.StopAPI(ctx, "orders", admin.Write{})
			return err
		}, "api_stopped", 404, func() error {
			_, err := o.StartAPI(ctx, "orders", admin.Write{})
			return err
		}},
		{"plan closed", func(admin.Subscription) error { // the last one: it is for ever
			_, err := o.ClosePlan(ctx, "orders", "api_key", admin.Write{})
			return err
		}, "revoked", 401, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := o.subscribe("orders", "api_key", "")
			events := gateway.OpenEvents(t, http.DefaultClient, g.URL("/orders"), keyHeader, s.NewKey.Secret)
			events.MustMessage(t)
			socket := gateway.OpenSocket(t, g, g.URL("/orders"), nil, keyHeader, s.NewKey.Secret)
			if _, _, err := socket.ReadMessage(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if err := tc.withdraw(s); err != nil {
				t.Fatal(err)
			}
			if got := goaway(t, events); got != tc.reason {
				t.Errorf("the event stream ended with %q, want %q", got, tc.reason)
			}
			if code := closeCode(t, socket); code != websocket.ClosePolicyViolation {
				t.Errorf("the socket ended with %d", code)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("ending took %s", took)
			}
			a := gateway.Do(t, http.DefaultClient, "GET", g.URL("/orders"), "", keyHeader, s.NewKey.Secret)
			if a.Status != tc.status {
				t.Errorf("afterwards: %d %s", a.Status, a.Body)
			}
			if tc.restore != nil {
				if err := tc.restore(); err != nil {
					t.Fatal(err)
				}
				if a := gateway.Do(t, http.DefaultClient, "GET", g.URL("/orders"), "", keyHeader, s.NewKey.Secret); a.Status != 200 {
					t.Errorf("restored: %d %s", a.Status, a.Body)
				}
			}
		})
	}
	t.Run("token expires", func(t *testing.T) {
		o.subscribe("orders", "jwt", "batch")
		bearer := "Bearer " + token(t, "batch", jwt.MapClaims{"exp": time.Now().Add(-28 * time.Second).Unix()}) // the leeway is 30 s
		events := gateway.OpenEvents(t, http.DefaultClient, g.URL("/orders"), "Authorization", bearer)
		events.MustMessage(t)
		if got := goaway(t, events); got != "expired" {
			t.Errorf("ended with %q", got)
		}
	})
	for range 5 {
		quiet.MustMessage(t)
	}
}

// goaway reads to the stream's end, and returns the reason that it was given.
func goaway(t *testing.T, e *gateway.Events) string {
	t.Helper()
	for {
		ev := e.MustMessage(t)
		if ev.Type == "goaway" {
			_, rest, _ := strings.Cut(ev.Data, `"reason":"`)
			reason, _, _ := strings.Cut(rest, `"`)
			return reason
		}
	}
}

// closeCode reads to the socket's end.
func closeCode(t *testing.T, c *websocket.Conn) int {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		if _, _, err := c.ReadMessage(); err != nil {
			if e, ok := err.(*websocket.CloseError); ok {
				return e.Code
			}
			t.Fatal(err)
		}
	}
}

// A renewed key works at once, the old one for as long as configured; several keys of one
// subscription work side by side.
func TestKeysRenewed(t *testing.T) {
	g := gateway.Start(t, "message_api {\n key_overlap 700ms\n custom_keys\n}\n", site(api("/orders", ticking+"plan api_key {\n validation auto\n}\n")))
	o := operator(t, g)
	ctx := context.Background()
	s := o.subscribe("orders", "api_key", "")
	status := func(key string) int {
		return gateway.Do(t, http.DefaultClient, "GET", g.URL("/orders"), "", keyHeader, key).Status
	}
	second := must[admin.NewKey](t)(o.AddKey(ctx, s.ID, admin.KeyRequest{}))
	custom := must[admin.NewKey](t)(o.AddKey(ctx, s.ID, admin.KeyRequest{Key: "chosen-by-somebody-0123456789"}))
	renewed := must[admin.NewKey](t)(o.RenewKey(ctx, s.NewKey.ID, admin.Write{}))
	for name, key := range map[string]string{"first": s.NewKey.Secret, "second": second.Secret, "custom": custom.Secret, "renewed": renewed.Secret} {
		if got := status(key); got != 200 {
			t.Errorf("%s key: %d", name, got)
		}
	}
	gateway.Eventually(t, 5*time.Second, "the old keys to end", func() bool {
		return status(s.NewKey.Secret) == 401 && status(second.Secret) == 401 && status(custom.Secret) == 401
	})
	if got := status(renewed.Secret); got != 200 {
		t.Errorf("the renewed key: %d", got)
	}
	for _, key := range []string{s.NewKey.Secret, renewed.Secret, "chosen-by-somebody-0123456789"} {
		if out := storedIn(t, g, key); out != "" {
			t.Errorf("the key is in %s", out)
		}
	}
}

// What a client says of itself does not make it somebody else, and pages of foreign origins
// can't use the credentials of who visits them.
func TestSmuggling(t *testing.T) {
	g := gateway.Start(t, "", site(api("/orders", ways+"plan api_key {\n validation auto\n query_parameter api-key\n}\nplan keyless\n"),
		api("/strict", ways+"plan api_key {\n validation auto\n}\n")))
	o := operator(t, g)
	s, strict := o.subscribe("orders", "api_key", ""), o.subscribe("strict", "api_key", "")
	key := s.NewKey.Secret
	const cid = "X-Gravitee-Client-Identifier"
	for name, tc := range map[string]struct {
		method, path string
		headers      []string
		status       int
		client       string // prefix
	}{
		"identifier appended, never taken":  {"POST", "/orders", []string{keyHeader, key, cid, "somebody"}, 202, s.ID + "-somebody"},
		"key in the query":                  {"POST", "/orders?api-key=" + key, nil, 202, s.ID},
		"wrong key in the query":            {"POST", "/orders?api-key=wrong", nil, 401, ""},
		"key twice in the query":            {"POST", "/orders?api-key=" + key + "&api-key=" + key, nil, 401, ""},
		"other keys in header and query":    {"POST", "/orders?api-key=" + key, []string{keyHeader, "wrong"}, 401, ""},
		"key in the query while forbidden":  {"POST", "/strict?api-key=" + strict.NewKey.Secret, nil, 401, ""},
		"header in another case":            {"POST", "/strict", []string{"x-gravitee-api-key", strict.NewKey.Secret}, 202, strict.ID},
		"header with an underscore":         {"POST", "/strict", []string{"X_Gravitee_Api_Key", strict.NewKey.Secret}, 401, ""},
		"cross-site post with a key":        {"POST", "/strict", []string{keyHeader, strict.NewKey.Secret, "Origin", "https://evil.example"}, 403, ""},
		"cross-site post without a key":     {"POST", "/orders", []string{"Origin", "https://evil.example"}, 403, ""},
		"cross-site post of an opaque page": {"POST", "/orders", []string{"Origin", "null"}, 403, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := gateway.Do(t, http.DefaultClient, tc.method, g.URL(tc.path), "x", tc.headers...)
			if a.Status != tc.status || !strings.HasPrefix(a.Header.Get(cid), tc.client) {
				t.Errorf("%d %q %s", a.Status, a.Header.Get(cid), a.Body)
			}
		})
	}
	for _, origin := range []string{"https://evil.example", "null", g.URL("")[:len("http://localhost")] + ".evil.example"} {
		conn, resp, err := gateway.TrySocket(g, g.URL("/strict"), nil, keyHeader, strict.NewKey.Secret, "Origin", origin)
		if err == nil {
			_ = conn.Close()
		}
		if resp == nil || resp.StatusCode != 403 {
			t.Errorf("cross-site WebSocket from %s: %v %v", origin, resp, err)
		}
	}
}

// Limits hold for each subscription by itself, and say what is left in whole seconds.
func TestLimits(t *testing.T) {
	g := gateway.Start(t, "", site(api("/orders", ways+`
	plan api_key fast {
		validation auto
		rate_limit 3/1m
		selection_rule "{query.plan} == 'fast'"
	}
	plan api_key much {
		validation auto
		quota 4/1d calendar
		publish_rate 5/1m
		max_sessions 1
		selection_rule "{query.plan} == 'much'"
	}
`)))
	o := operator(t, g)
	get := func(plan, key string) gateway.Answer {
		return gateway.Do(t, http.DefaultClient, "GET", g.URL("/orders?plan="+plan), "", keyHeader, key)
	}
	one, other := o.subscribe("orders", "fast", ""), o.subscribe("orders", "fast", "")
	for i := range 3 {
		a := get("fast", one.NewKey.Secret)
		if a.Status != 200 || a.Header.Get("X-Rate-Limit-Limit") != "3" || a.Header.Get("X-Rate-Limit-Remaining") != fmt.Sprint(2-i) {
			t.Errorf("%d: %d %v", i, a.Status, a.Header)
		}
	}
	a := get("fast", one.NewKey.Secret)
	slug, _ := a.Problem(t)
	if wait := a.Header.Get("Retry-After"); a.Status != 429 || slug != "limit-exceeded" || wait < "1" || len(wait) > 2 {
		t.Errorf("over the rate: %d %s, Retry-After %q", a.Status, slug, wait)
	}
	if a := get("fast", other.NewKey.Secret); a.Status != 200 {
		t.Errorf("another subscription: %d", a.Status)
	}
	much := o.subscribe("orders", "much", "")
	for range 4 {
		a = get("much", much.NewKey.Secret)
	}
	if a.Status != 200 || a.Header.Get("X-Quota-Limit") != "4" || a.Header.Get("X-Quota-Remaining") != "0" {
		t.Errorf("the last of the quota: %d %v", a.Status, a.Header)
	}
	if a = get("much", much.NewKey.Secret); a.Status != 429 || a.Header.Get("Retry-After") == "" {
		t.Errorf("over the quota: %d %v", a.Status, a.Header)
	}
	// A reload gives nobody a fresh start.
	if err := g.Load("message_api {\n sync_interval 2s\n}\n", site(api("/orders", ways+"plan api_key fast {\n validation auto\n rate_limit 3/1m\n}\nplan api_key much {\n quota 4/1d calendar\n}\n"))); err != nil {
		t.Fatal(err)
	}
	if a := get("much", much.NewKey.Secret); a.Status != 429 {
		t.Errorf("after a reload: %d", a.Status)
	}
}

// Messages over publish_rate are refused, and those within it are sent: in a batch, in single
// posts and over a WebSocket alike. More sessions than allowed are refused.
func TestMessageRates(t *testing.T) {
	g := gateway.Start(t, "", site(api("/orders", ways+"plan api_key {\n validation auto\n publish_rate 5/1m\n max_sessions 1\n}\n")))
	o := operator(t, g)
	s := o.subscribe("orders", "api_key", "")
	batch := strings.Repeat(`{"content":"x"}`+"\n", 8)
	a := gateway.Do(t, http.DefaultClient, "POST", g.URL("/orders"), batch, keyHeader, s.NewKey.Secret, "Content-Type", "application/x-ndjson", "Prefer", "return=representation")
	if n := strings.Count(a.Body, `"status":429`); n != 3 {
		t.Errorf("%d of 8 were refused: %d %s", n, a.Status, a.Body)
	}
	if a = gateway.Do(t, http.DefaultClient, "POST", g.URL("/orders"), "x", keyHeader, s.NewKey.Secret); a.Status != 429 || a.Header.Get("Retry-After") == "" {
		t.Errorf("one more: %d %s", a.Status, a.Body)
	}
	events := gateway.OpenEvents(t, http.DefaultClient, g.URL("/orders"), keyHeader, s.NewKey.Secret)
	if events.Answer.Status != 200 {
		t.Fatal(events.Answer)
	}
	if a = gateway.Do(t, http.DefaultClient, "GET", g.URL("/orders"), "", keyHeader, s.NewKey.Secret); a.Status != 429 {
		t.Errorf("a second session: %d", a.Status)
	}
}

// Reading is slowed down to receive_rate. Where the broker has positions nothing is lost by it;
// where it has none, what could not be delivered is told as a gap of reason rate.
func TestReceiveRate(t *testing.T) {
	plan := "plan api_key {\n validation auto\n receive_rate 40/1s\n}\n"
	g := gateway.Start(t, "", site(
		api("/ticks", "entrypoint sse\nendpoint mock {\n message_interval 1ms\n}\n"+plan),
		api("/loop", "entrypoint sse {\n qos none\n}\nentrypoint http_post\nendpoint mock {\n loopback\n}\nlog_size 1MiB\n"+plan),
	))
	o := operator(t, g)
	pace := func(t *testing.T, began time.Time, messages int) {
		t.Helper()
		took := time.Since(began)
		if perSecond := float64(messages-40) / took.Seconds(); perSecond > 48 { // 40 at once are the burst
			t.Errorf("%d messages in %s", messages, took)
		}
	}
	t.Run("positions", func(t *testing.T) {
		s := o.subscribe("ticks", "api_key", "")
		began := time.Now()
		events := gateway.OpenEvents(t, http.DefaultClient, g.URL("/ticks"), keyHeader, s.NewKey.Secret)
		for i := range 100 {
			if ev := events.MustMessage(t); ev.Type != "message" || ev.Data != fmt.Sprint("mock message ", i) && ev.Data != "mock message" {
				t.Fatalf("%d: %+v", i, ev)
			}
		}
		pace(t, began, 100)
	})
	t.Run("no positions", func(t *testing.T) {
		s := o.subscribe("loop", "api_key", "")
		events := gateway.OpenEvents(t, http.DefaultClient, g.URL("/loop"), keyHeader, s.NewKey.Secret)
		began, messages, gaps := time.Now(), 0, 0
		stop := make(chan struct{})
		var flood sync.WaitGroup
		flood.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := gateway.TryDo(http.DefaultClient, "POST", g.URL("/loop"), strings.Repeat("x", 2000), keyHeader, s.NewKey.Secret); err != nil {
					t.Error(err)
					return
				}
			}
		})
		for gaps == 0 || messages < 60 {
			switch ev := events.MustMessage(t); ev.Type {
			case "message":
				messages++
			case "gap":
				if gaps++; !strings.Contains(ev.Data, `"reason":"rate"`) {
					t.Errorf("a gap: %s", ev.Data)
				}
			}
		}
		close(stop)
		flood.Wait()
		pace(t, began, messages)
		t.Logf("%d messages and %d gaps in %s", messages, gaps, time.Since(began))
	})
}

// Streams that are opened at the very moment at which their key is revoked end too.
func TestNobodySlipsThroughARevocation(t *testing.T) {
	g := gateway.Start(t, "", site(api("/orders", ticking+"plan api_key {\n validation auto\n}\n")))
	o := operator(t, g)
	client := g.Client(0)
	for range 5 {
		s := o.subscribe("orders", "api_key", "")
		var (
			opening sync.WaitGroup
			mu      sync.Mutex
			streams []*gateway.Events
		)
		for range 20 {
			opening.Go(func() {
				for range 1000 {
					e, err := gateway.TryEvents(client, g.URL("/orders"), keyHeader, s.NewKey.Secret)
					if err != nil {
						t.Error(err)
						return
					}
					if e.Answer.Status != 200 {
						return // revoked
					}
					mu.Lock()
					streams = append(streams, e)
					mu.Unlock()
				}
			})
		}
		if _, err := o.RevokeKey(context.Background(), s.NewKey.ID, admin.Write{}); err != nil {
			t.Fatal(err)
		}
		opening.Wait()
		for _, e := range streams {
			if reason := goaway(t, e); reason != "revoked" {
				t.Errorf("ended with %q", reason)
			}
			e.Close()
		}
		t.Logf("%d streams had begun", len(streams))
	}
}

// A configuration that can't start leaves the running one as it was, with all that can be done
// at run time.
func TestReloadThatFails(t *testing.T) {
	sites := "http://localhost:PORT {\n route {\n" + api("/orders", ticking+"plan api_key {\n validation auto\n}\n") + "\n message_api\n }\n}\n"
	g := gateway.Start(t, "", sites)
	o := operator(t, g)
	s := o.subscribe("orders", "api_key", "")
	events := gateway.OpenEvents(t, http.DefaultClient, g.URL("/orders"), keyHeader, s.NewKey.Secret)
	events.MustMessage(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for range 5 { // Caddy starts its apps in any order
		if err := g.Load("message_api {\n plans_forbidden keyless\n}\n", sites+fmt.Sprintf("http://127.0.0.1:%d {\n bind 127.0.0.1\n respond ok\n}\n", taken.Addr().(*net.TCPAddr).Port)); err == nil {
			t.Fatal("a site on a port that is taken was started")
		}
		o = operator(t, g)
		gateway.Eventually(t, 5*time.Second, "Caddy's admin endpoint", func() bool { // is replaced in a reload
			_, err := o.API(context.Background(), "orders")
			return err == nil
		})
		if _, err := o.SaveAPI(context.Background(), "mine", definition("/mine", "20ms"), admin.Save{Deploy: true}); err != nil {
			t.Fatal(err) // plans_forbidden is not in force
		}
		if a := gateway.Do(t, http.DefaultClient, "GET", g.URL("/mine"), ""); a.Status != 200 {
			t.Errorf("the managed API: %d %s", a.Status, a.Body)
		}
		events.MustMessage(t)
	}
	if _, err := o.RevokeKey(context.Background(), s.NewKey.ID, admin.Write{}); err != nil {
		t.Fatal(err)
	}
	if reason := goaway(t, events); reason != "revoked" {
		t.Errorf("ended with %q", reason)
	}
}
