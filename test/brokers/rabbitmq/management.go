package rabbitmq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Management speaks to a RabbitMQ's management HTTP API.
type Management struct {
	// URL has no path, as "http://127.0.0.1:15672".
	URL string
	// User and Password are those of an administrator.
	User, Password string
}

// APIError is an answer of the management API that is no success.
type APIError struct {
	Request string
	Status  int
	Body    string
}

func (e *APIError) Error() string {
	return fmt.Sprintf("%s: the management API answers %d: %s", e.Request, e.Status, e.Body)
}

// Path makes a path below /api/ whose segments are escaped: a virtual host may be "/".
func Path(segments ...string) string {
	path := "/api"
	for _, segment := range segments {
		path += "/" + url.PathEscape(segment)
	}
	return path
}

// Call makes a request. body is sent as JSON unless it is nil, and the answer is decoded
// into answer unless that is nil. An answer that is no success is an *APIError.
func (m Management) Call(ctx context.Context, method, path string, body, answer any) error {
	var payload io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, m.URL+path, payload)
	if err != nil {
		return err
	}
	request.SetBasicAuth(m.User, m.Password)
	request.Header.Set("Content-Type", "application/json")
	// No connection is kept: tests look for what they have left open.
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return &APIError{Request: method + " " + path, Status: response.StatusCode, Body: string(text)}
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// IsNotFound says that an error is the answer that there is no such thing.
func IsNotFound(err error) bool {
	var answer *APIError
	return errors.As(err, &answer) && answer.Status == http.StatusNotFound
}

// VirtualHostsUp fails while a virtual host is not ready.
func (m Management) VirtualHostsUp(ctx context.Context) error {
	return m.Call(ctx, http.MethodGet, Path("health", "checks", "virtual-hosts"), nil, nil)
}

// CreateVirtualHost makes a virtual host in which these users may do everything.
func (m Management) CreateVirtualHost(ctx context.Context, name string, users ...string) error {
	if err := m.Call(ctx, http.MethodPut, Path("vhosts", name), map[string]any{}, nil); err != nil {
		return err
	}
	all := map[string]string{"configure": ".*", "write": ".*", "read": ".*"}
	for _, user := range users {
		if err := m.Call(ctx, http.MethodPut, Path("permissions", name, user), all, nil); err != nil {
			return err
		}
	}
	return nil
}

// DeleteVirtualHost deletes a virtual host and all that is in it, and closes its
// connections. That it is gone already is no error.
func (m Management) DeleteVirtualHost(ctx context.Context, name string) error {
	err := m.Call(ctx, http.MethodDelete, Path("vhosts", name), nil, nil)
	if IsNotFound(err) {
		return nil
	}
	return err
}

// QueueState is what the management API says of a queue. It lags behind the truth, by
// collect_statistics_interval (200 ms in these nodes), longer on a busy machine.
type QueueState struct {
	Name string `json:"name"`
	// Type is classic, quorum or stream.
	Type    string `json:"type"`
	Durable bool   `json:"durable"`
	// Exclusive queues belong to one connection.
	Exclusive  bool           `json:"exclusive"`
	AutoDelete bool           `json:"auto_delete"`
	Arguments  map[string]any `json:"arguments"`
	// Ready messages wait to be delivered, Unacked ones are delivered and not yet
	// acknowledged; Messages is their sum.
	Ready    int `json:"messages_ready"`
	Unacked  int `json:"messages_unacknowledged"`
	Messages int `json:"messages"`
	// Consumers is how many there are.
	Consumers int `json:"consumers"`
	// Counts are totals since the queue's or the node's start.
	Counts Counts `json:"message_stats"`
}

// Counts are numbers of messages.
type Counts struct {
	// Published ones came into the queue.
	Published int `json:"publish"`
	// Delivered ones went out, by consumers that acknowledge or not, or by basic.get.
	// Redelivered ones are those among them that were delivered before.
	Delivered   int `json:"deliver_get"`
	Redelivered int `json:"redeliver"`
	Acked       int `json:"ack"`
}

// Queue returns the state of a queue. While the management API knows nothing of it the
// error is an *APIError with status 404.
func (m Management) Queue(ctx context.Context, vhost, name string) (QueueState, error) {
	var state QueueState
	err := m.Call(ctx, http.MethodGet, Path("queues", vhost, name), nil, &state)
	return state, err
}

// Queues returns the states of all queues of a virtual host.
func (m Management) Queues(ctx context.Context, vhost string) ([]QueueState, error) {
	var states []QueueState
	err := m.Call(ctx, http.MethodGet, Path("queues", vhost), nil, &states)
	return states, err
}

// Connection is a client's connection.
type Connection struct {
	// Name is its key at the management API, User who has logged in.
	Name string `json:"name"`
	User string `json:"user"`
	// Channels is how many it has.
	Channels int `json:"channels"`
	// Client is what the client says of itself; connection_name is the one it chose.
	Client map[string]any `json:"client_properties"`
}

// Connections returns the connections to a virtual host, as far as the management API
// knows of them yet.
func (m Management) Connections(ctx context.Context, vhost string) ([]Connection, error) {
	var connections []Connection
	err := m.Call(ctx, http.MethodGet, Path("vhosts", vhost, "connections"), nil, &connections)
	return connections, err
}

// CloseConnections closes those connections to a virtual host that the management API
// knows of, as an operator would, and says how many they were.
func (m Management) CloseConnections(ctx context.Context, vhost string) (int, error) {
	connections, err := m.Connections(ctx, vhost)
	if err != nil {
		return 0, err
	}
	closed := 0
	for _, c := range connections {
		err := m.Call(ctx, http.MethodDelete, Path("connections", c.Name), nil, nil)
		if IsNotFound(err) {
			continue
		}
		if err != nil {
			return closed, err
		}
		closed++
	}
	return closed, nil
}
