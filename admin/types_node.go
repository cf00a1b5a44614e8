package admin

import "time"

// Running is what one node serves of an API. It holds no option of anything, and so no
// secret.
type Running struct {
	Name        string   `json:"-"`
	Version     string   `json:"-"`
	Description string   `json:"-"`
	Labels      []string `json:"-"`
	Paths       []string `json:"-"`
	// Hash tells definitions apart, also when only a secret differs.
	Hash        string       `json:"hash"`
	Entrypoints []Entrypoint `json:"entrypoints"`
	Endpoints   []Endpoint   `json:"endpoints"`
	// Sessions is the number of open sessions, Channels that of shared logs.
	Sessions int `json:"sessions"`
	Channels int `json:"channels"`
}

// Entrypoint is a way in, and the names of the endpoints that were chosen for it.
type Entrypoint struct {
	Type      string `json:"type"`
	QoS       string `json:"qos"`
	Publish   string `json:"publish,omitempty"`
	Subscribe string `json:"subscribe,omitempty"`
}

// Endpoint is the connection to a broker, as the node that answers sees it.
type Endpoint struct {
	API  string `json:"api"`
	Name string `json:"name"`
	Type string `json:"type"`
	// State is idle, connecting, up or down.
	State string `json:"state"`
	// Address is where the broker is, without credentials.
	Address string `json:"address,omitempty"`
	// Error is the last failure, without secrets.
	Error string    `json:"error,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// Session is one client's open exchange on the node that answers.
type Session struct {
	ID           uint64    `json:"id"`
	API          string    `json:"api"`
	Entrypoint   string    `json:"entrypoint"`
	Plan         string    `json:"plan"`
	Application  string    `json:"application,omitempty"`
	Subscription string    `json:"subscription,omitempty"`
	Client       string    `json:"client"`
	RequestID    string    `json:"request_id"`
	Since        time.Time `json:"since"`
	Sent         int64     `json:"messages_sent"`
	Received     int64     `json:"messages_received"`
}

// StoreStatus is how the store stands, as the node that answers sees it.
type StoreStatus struct {
	// Node is the id of the node that answers, new at every start of the process.
	Node  string      `json:"node"`
	Nodes []StoreNode `json:"nodes"`
	// Records counts them by kind.
	Records  map[string]int `json:"records"`
	Problems []StoreProblem `json:"problems"`
}

// StoreNode is a node that shares the store.
type StoreNode struct {
	ID   string `json:"id"`
	Host string `json:"host,omitempty"`
	// Self: it is the one that answers. Alive: it has given a sign of life lately.
	Self  bool `json:"self"`
	Alive bool `json:"alive"`
	// Sequence is the number of its last batch of changes.
	Sequence uint64 `json:"sequence"`
	// Seen is when it last gave a sign of life, by its clock.
	Seen time.Time `json:"seen,omitzero"`
}

// StoreProblem is something in the store, or about an API in it, that was skipped or
// overruled.
type StoreProblem struct {
	Path   string    `json:"path"`
	Detail string    `json:"detail"`
	At     time.Time `json:"at,omitzero"`
}

// ImportReport says what an import did.
type ImportReport struct {
	Added     int `json:"added"`
	Updated   int `json:"updated"`
	Unchanged int `json:"unchanged"`
	// Skipped are the first thousand records that were not taken; NotTaken counts all.
	Skipped  []Skipped `json:"skipped"`
	NotTaken int       `json:"not_taken"`
}

// Skipped is a record that an import did not take.
type Skipped struct {
	Kind   string `json:"kind"`
	ID     string `json:"id"`
	Reason string `json:"reason"`
}
