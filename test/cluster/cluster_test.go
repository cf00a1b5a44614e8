// Package cluster tests several gateways that share a storage, from outside: processes of the
// caddy command, the admin API, and plain HTTP clients.
package cluster

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

func TestMain(m *testing.M) {
	gateway.Command = "github.com/caddy-message-api/caddy-message-api/test/cluster/caddy"
	gateway.Main(m)
}

const (
	syncInterval = time.Second
	// soon is when a change on one node must have been seen by the others.
	soon = syncInterval + time.Second
)

// storages make a place that nodes can share, as it stands in a Caddyfile.
var storages = []struct {
	name string
	make func(testing.TB) string
}{
	{"files", func(t testing.TB) string { return "file_system " + t.TempDir() }},
	{"Redis", func(t testing.TB) string { return onRedis(brokers.Redis(t)) }},
}

func onRedis(r *brokers.RedisServer, options ...string) string {
	return "redis_for_tests {\n\taddress " + r.Addr() + "\n\t" + strings.Join(options, "\n\t") + "\n}"
}

// onEach runs a test on every storage.
func onEach(t *testing.T, test func(t *testing.T, storage string)) {
	t.Helper()
	skipShort(t)
	for _, s := range storages {
		t.Run(s.name, func(t *testing.T) { test(t, s.make(t)) })
	}
}

// skipShort leaves a test out of short runs, which would build one more command for it.
func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("short")
	}
}

// orders is the API that all nodes have in their Caddyfile, beside those that are managed.
// What is none of them is 404.
const orders = `
	message_api /orders {
		entrypoint sse
		entrypoint http_get {
			messages_limit 1
		}
		entrypoint http_post
		endpoint mock {
			message_interval 20ms
		}
		plan api_key {
			validation auto
		}
	}
	message_api
	file_server {
		root /nowhere
	}
`

// node is one of the gateways.
type node struct {
	*gateway.Process
	t      *testing.T
	name   string
	admin  *admin.Client
	client *http.Client
}

// start starts a node on a storage.
func start(t *testing.T, name, storage string, sync time.Duration) *node {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	globals := fmt.Sprintf("message_api {\n\tsync_interval %s\n}", sync)
	p := gateway.RunWith(t, gateway.Setup{Storage: storage, Admin: true, Plain: true}, globals, "http://localhost:PORT {\n"+orders+"}")
	c := &admin.Client{Base: fmt.Sprintf("http://127.0.0.1:%d", p.AdminPort)}
	t.Cleanup(c.Close)
	return &node{Process: p, t: t, name: name, admin: c, client: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
}

// startTwo starts two nodes that share a storage, and waits until they have opened it.
func startTwo(t *testing.T, storage string, sync time.Duration) (a, b *node) {
	t.Helper()
	a, b = start(t, "A", storage, sync), start(t, "B", storage, sync)
	a.opens()
	b.opens()
	return a, b
}

// opens waits until the node, which was just started, has opened its store. Until then it
// answers 503.
func (n *node) opens() {
	n.t.Helper()
	n.sees(time.Now(), "nobody, when the store is open", "/orders", "", http.StatusUnauthorized)
}

// get asks for one message with a key, if there is one.
func (n *node) get(path, key string) gateway.Answer {
	n.t.Helper()
	return gateway.Do(n.t, n.client, http.MethodGet, n.URL(path), "", keyHeader(key)...)
}

func keyHeader(key string) []string {
	if key == "" {
		return nil
	}
	return []string{"X-Gravitee-Api-Key", key}
}

// sees waits until the node answers with the status, and tells how long after since that was.
func (n *node) sees(since time.Time, what, path, key string, status int) {
	n.t.Helper()
	n.eventually(since, fmt.Sprintf("%d for %s", status, what), func() bool { return n.get(path, key).Status == status })
}

// eventually waits until ok says yes, which must be soon after since.
func (n *node) eventually(since time.Time, what string, ok func() bool) {
	n.t.Helper()
	gateway.Eventually(n.t, time.Until(since.Add(soon)), n.name+": "+what, ok)
	n.t.Logf("%s: %s: after %s", n.name, what, time.Since(since).Round(time.Millisecond))
}

// neverReloaded makes sure that the node serves the configuration that it was started with.
func (n *node) neverReloaded() {
	n.t.Helper()
	out := n.Output()
	if got := strings.Count(out, `"serving initial configuration"`); got != 1 {
		n.t.Errorf("%s served %d initial configurations since it was started", n.name, got)
	}
	for _, reload := range []string{`"load complete"`, `"stopped previous server"`, `"uri":"/load"`, `"uri":"/config`} {
		if strings.Contains(out, reload) {
			n.t.Errorf("%s was reloaded: its log says %s", n.name, reload)
		}
	}
}

// subscribed is an application with a subscription and its key.
type subscribed struct{ application, subscription, keyID, key string }

// subscribe makes one, on the plan api_key of an API.
func (n *node) subscribe(api string) subscribed {
	n.t.Helper()
	app, err := n.admin.CreateApplication(n.t.Context(), admin.NewApplication{Name: n.t.Name()})
	if err != nil {
		n.t.Fatalf("making an application on %s: %v", n.name, err)
	}
	s, err := n.admin.Subscribe(n.t.Context(), admin.SubscribeRequest{API: api, Plan: "api_key", Application: app.ID})
	if err != nil {
		n.t.Fatalf("subscribing on %s: %v", n.name, err)
	}
	if s.NewKey == nil || s.NewKey.Secret == "" || s.Status != "accepted" {
		n.t.Fatalf("under automatic validation the subscription is %+v", s)
	}
	return subscribed{app.ID, s.ID, s.NewKey.ID, s.NewKey.Secret}
}
