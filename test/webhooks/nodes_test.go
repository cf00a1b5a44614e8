package webhooks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// Leases as the gateway has them when nothing else is configured: a node is gone when nothing was
// heard of it for two of them, and another takes over within three.
const (
	lease    = 5 * time.Second
	takeOver = 3 * lease
	// patience is how long a broker may need to be read again: Kafka waits ten seconds for a
	// member of a group that has been killed.
	patience = 20 * time.Second
)

// node is one of the gateways. What it does but for Process can be done from any goroutine.
type node struct {
	*gateway.Process
	name   string
	client *http.Client
}

// startNode starts a gateway on a storage.
func startNode(t *testing.T, name, storage, sites string) *node {
	t.Helper()
	p := gateway.RunWith(t, gateway.Setup{Storage: storage, Admin: true, Plain: true}, globals, sites)
	transport := &http.Transport{DisableKeepAlives: true}
	return &node{p, name, &http.Client{Transport: transport, Timeout: 10 * time.Second}}
}

// globals leaves out of the log that somebody asks how it goes.
const globals = "log {\n\texclude admin.api\n}\nmessage_api {\n\tsync_interval 1s\n}"

// try asks the admin API, and decodes what is no error into out.
func (n *node) try(method, path string, body, out any) error {
	var text []byte
	headers := []string{}
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
		headers = []string{"Content-Type", "application/json"}
	}
	a, err := gateway.TryDo(n.client, method, fmt.Sprintf("http://127.0.0.1:%d/message_api%s", n.AdminPort, path), string(text), headers...)
	if err != nil {
		return err
	}
	if a.Status/100 != 2 {
		return fmt.Errorf("%s %s on %s: %d %s", method, path, n.name, a.Status, a.Body)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal([]byte(a.Body), out)
}

// delivery tells how it stands with a subscription, as this node knows it.
func (n *node) delivery(subscription string) (d admin.Delivery, err error) {
	err = n.try(http.MethodGet, "/subscriptions/"+subscription+"/delivery", nil, &d)
	return d, err
}
