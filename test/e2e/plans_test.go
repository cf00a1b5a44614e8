package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

const (
	keyHeader  = "X-Gravitee-Api-Key"
	hmacSecret = "a secret of more than thirty-two characters"
)

// owner is the operator of a gateway, by its admin API.
type owner struct {
	*admin.Client
	t testing.TB
}

func operator(t testing.TB, g *gateway.Gateway) *owner {
	c := &admin.Client{Base: fmt.Sprintf("http://127.0.0.1:%d", g.AdminPort)}
	t.Cleanup(c.Close)
	return &owner{c, t}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// application makes one; clientID may be empty.
func (o *owner) application(name, clientID string) string {
	o.t.Helper()
	return must[admin.Application](o.t)(o.CreateApplication(context.Background(), admin.NewApplication{Name: name, ClientID: clientID})).ID
}

// subscribe subscribes a new application.
func (o *owner) subscribe(api, plan, clientID string) admin.Subscription {
	o.t.Helper()
	app := o.application(api+" "+plan+" "+clientID, clientID)
	return must[admin.Subscription](o.t)(o.Subscribe(context.Background(), admin.SubscribeRequest{API: api, Plan: plan, Application: app}))
}

// token signs one, with another library than the one that reads it.
func token(t testing.TB, clientID string, claims jwt.MapClaims) string {
	t.Helper()
	all := jwt.MapClaims{"iss": "https://issuer", "aud": "orders", "azp": clientID, "exp": time.Now().Add(time.Hour).Unix()}
	for k, v := range claims {
		all[k] = v
	}
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, all).SignedString([]byte(hmacSecret))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

const ways = `
	entrypoint http_get {
		duration_limit 10ms
	}
	entrypoint http_post
	entrypoint sse
	entrypoint websocket
	endpoint mock {
		loopback
	}
`

const jwtPlan = `
	plan jwt {
		secret "` + hmacSecret + `"
		issuer https://issuer
		audience orders
		validation auto
	}
`

// knock tries one entrypoint with headers.
func knock(t *testing.T, g *gateway.Gateway, entrypoint, path string, headers []string) (status int, challenge string) {
	t.Helper()
	switch entrypoint {
	case "http_get":
		a := gateway.Do(t, http.DefaultClient, "GET", g.URL(path), "", headers...)
		return a.Status, a.Header.Get("WWW-Authenticate")
	case "http_post":
		a := gateway.Do(t, http.DefaultClient, "POST", g.URL(path), "x", headers...)
		return a.Status, a.Header.Get("WWW-Authenticate")
	case "sse":
		h := http.Header{}
		req, err := http.NewRequest("GET", g.URL(path), nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			h.Add(headers[i], headers[i+1])
		}
		h.Set("Accept", "text/event-stream")
		req.Header = h
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("WWW-Authenticate")
	default:
		conn, resp, err := gateway.TrySocket(g, g.URL(path), nil, headers...)
		if err == nil {
			_ = conn.Close()
		}
		if resp == nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("WWW-Authenticate")
	}
}

// What every plan answers to every credential at every entrypoint: status, challenge, and
// what the access log says. The table is part of the documentation.
func TestPlansAndCredentials(t *testing.T) {
	g := gateway.Start(t, "", "http://localhost:PORT {\n"+strings.Join([]string{
		"log",
		api("/key", ways+"plan api_key {\n validation auto\n}\n"),
		api("/two", ways+"plan api_key gold {\n validation auto\n selection_rule `{query.tier} != \"silver\"`\n}\nplan api_key silver {\n validation manual\n selection_rule `{query.tier} == \"silver\"`\n}\n"),
		api("/token", ways+jwtPlan),
		api("/waits", ways+strings.Replace(jwtPlan, "validation auto", "validation manual", 1)),
		api("/all", ways+jwtPlan+"plan api_key {\n validation auto\n}\nplan keyless\n"),
	}, "\n")+"\n}\n")
	o := operator(t, g)
	ctx := context.Background()
	key := func(api, plan string) (string, admin.Subscription) {
		s := o.subscribe(api, plan, "")
		return s.NewKey.Secret, s
	}
	cases := map[string][]credential{}
	for _, api := range []string{"key", "all"} {
		good, _ := key(api, "api_key")
		second, _ := key(api, "api_key")
		expired, s := key(api, "api_key")
		must[admin.Key](t)(o.ExpireKey(ctx, s.NewKey.ID, time.Now().Add(100*time.Millisecond), "")) // over before it is used
		revoked, s := key(api, "api_key")
		must[admin.Key](t)(o.RevokeKey(ctx, s.NewKey.ID, admin.Write{}))
		paused, s := key(api, "api_key")
		must[admin.Subscription](t)(o.Pause(ctx, s.ID, admin.Write{}))
		closed, s := key(api, "api_key")
		must[admin.Subscription](t)(o.CloseSubscription(ctx, s.ID, admin.Write{}))
		elsewhere, _ := key("two", "gold")
		cases[api] = []credential{
			{"key, good", []string{keyHeader, good}},
			{"key, wrong", []string{keyHeader, good[:len(good)-1] + "0"}},
			{"key, malformed", []string{keyHeader, "no such key!"}},
			{"key, empty", []string{keyHeader, ""}},
			{"key, expired", []string{keyHeader, expired}},
			{"key, revoked", []string{keyHeader, revoked}},
			{"key, paused", []string{keyHeader, paused}},
			{"key, closed", []string{keyHeader, closed}},
			{"key, other API's", []string{keyHeader, elsewhere}},
			{"two good keys", []string{keyHeader, good, keyHeader, second}},
			{"a good token for another plan", []string{"Authorization", "Bearer " + token(t, "nobody", nil)}},
		}
	}
	o.subscribe("waits", "jwt", "patient")
	begins := o.application("begins tomorrow", "tomorrow")
	must[admin.Subscription](t)(o.Subscribe(ctx, admin.SubscribeRequest{API: "token", Plan: "jwt", Application: begins, Starts: time.Now().Add(24 * time.Hour)}))
	cases["waits"] = []credential{{"token, pending", []string{"Authorization", "Bearer " + token(t, "patient", nil)}}}
	gold, _ := key("two", "gold")
	silver := o.subscribe("two", "silver", "")
	silver = must[admin.Subscription](t)(o.Accept(ctx, silver.ID, admin.AcceptRequest{}, ""))
	cases["two"] = []credential{
		{"key, good", []string{keyHeader, gold}},
		{"key, other plan's", []string{keyHeader, silver.NewKey.Secret}},
	}
	cases["two?tier=silver"] = []credential{
		{"key, good", []string{keyHeader, silver.NewKey.Secret}},
		{"key, other plan's", []string{keyHeader, gold}},
	}
	for _, api := range []string{"token", "all"} {
		o.subscribe(api, "jwt", api+"-client")
		paused := o.subscribe(api, "jwt", api+"-paused")
		must[admin.Subscription](t)(o.Pause(ctx, paused.ID, admin.Write{}))
		o.subscribe("two", "gold", api+"-elsewhere")
		bearer := func(clientID string, claims jwt.MapClaims) []string {
			return []string{"Authorization", "Bearer " + token(t, clientID, claims)}
		}
		cases[api] = append(cases[api], []credential{
			{"token, good", bearer(api+"-client", nil)},
			{"token, wrong signature", []string{"Authorization", "Bearer " + token(t, api+"-client", nil)[:40] + "x.y"}},
			{"token, malformed", []string{"Authorization", "Bearer one two"}},
			{"token, empty", []string{"Authorization", "Bearer"}},
			{"token, expired", bearer(api+"-client", jwt.MapClaims{"exp": 1577836800})},
			{"token, of another issuer", bearer(api+"-client", jwt.MapClaims{"iss": "https://other"})},
			{"token, for another audience", bearer(api+"-client", jwt.MapClaims{"aud": "payments"})},
			{"token, paused", bearer(api+"-paused", nil)},
			{"token, other API's client", bearer(api+"-elsewhere", nil)},
			{"token, unknown client", bearer("nobody", nil)},
			{"two good tokens", append(bearer(api+"-client", nil), bearer(api+"-client", nil)...)},
		}...)
	}
	cases["token"] = append(cases["token"], credential{"token, begins tomorrow", []string{"Authorization", "Bearer " + token(t, "tomorrow", nil)}})
	good := cases["all"][0].headers
	cases["all"] = append(cases["all"],
		credential{"good token and wrong key", append([]string{"Authorization", "Bearer " + token(t, "all-client", nil)}, keyHeader, "wrong")},
		credential{"wrong token and good key", append([]string{"Authorization", "Bearer wrong"}, good...)},
		credential{"basic authentication", []string{"Authorization", "Basic eDp5"}},
	)

	var table strings.Builder
	table.WriteString("| API | credential | status | challenge | access log |\n|---|---|---|---|---|\n")
	for _, api := range []string{"key", "two", "two?tier=silver", "token", "waits", "all"} {
		for _, c := range append([]credential{{"none", nil}}, cases[api]...) {
			var rows []string
			for _, entrypoint := range []string{"http_get", "http_post", "sse", "websocket"} {
				status, challenge := knock(t, g, entrypoint, "/"+api, c.headers)
				if status == 101 || status == 202 {
					status = 200 // the entrypoint's own way to say so
				}
				rows = append(rows, fmt.Sprintf("| %s | %s | %d | %s | %s |\n", api, c.name, status, strings.ReplaceAll(challenge, "|", "\\|"), refusalLogged(t, g)))
			}
			if slices.ContainsFunc(rows, func(r string) bool { return r != rows[0] }) {
				t.Errorf("the entrypoints differ: %q", rows)
			}
			table.WriteString(rows[0])
		}
	}
	golden(t, "testdata/plans.md", table.String())
	if raw := g.Log(); strings.Contains(raw, "cma_") {
		t.Errorf("a key is in the log: %s", raw)
	}
}

type credential struct {
	name    string
	headers []string
}

// refusalLogged is what the access log says of the last request.
func refusalLogged(t *testing.T, g *gateway.Gateway) string {
	t.Helper()
	logged++
	var last string
	gateway.Eventually(t, 5*time.Second, fmt.Sprintf("access log line %d", logged), func() bool {
		raw, err := os.ReadFile(g.LogFile())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(raw)) {
			if strings.Contains(line, `"logger":"http.log.access`) {
				last = line
				n++
			}
		}
		return n == logged
	})
	var entry struct {
		Refused string `json:"message_api_refused"`
	}
	if err := json.Unmarshal([]byte(last), &entry); err != nil {
		t.Fatalf("%s: %v", last, err)
	}
	return entry.Refused
}

var logged int
