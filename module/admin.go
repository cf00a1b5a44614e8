package module

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

func init() {
	caddy.RegisterModule(new(adminAPI))
}

// adminAPI shows on Caddy's admin endpoint what is being served. It keeps nothing: Caddy
// makes it before any app, and never cleans it up.
//
//	GET    /message_api/apis
//	GET    /message_api/apis/{id}
//	GET    /message_api/endpoints
//	GET    /message_api/sessions?api=&plan=&application=&subscription=&limit=
//	DELETE /message_api/sessions/{id}
type adminAPI struct{}

// CaddyModule implements caddy.Module.
func (*adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.message_api", New: func() caddy.Module { return new(adminAPI) }}
}

// Routes implements caddy.AdminRouter.
func (a *adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/message_api/apis", Handler: adminGet(a.apis)},
		{Pattern: "/message_api/apis/", Handler: adminGet(a.api)},
		{Pattern: "/message_api/endpoints", Handler: adminGet(a.endpoints)},
		{Pattern: "/message_api/sessions", Handler: adminGet(a.sessions)},
		{Pattern: "/message_api/sessions/", Handler: caddy.AdminHandlerFunc(a.session)},
	}
}

// adminGet answers GET with what f returns, as JSON.
func adminGet(f func(*http.Request) (any, error)) caddy.AdminHandler {
	return caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("%s is not for %s", r.Method, r.URL.Path)}
		}
		v, err := f(r)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(v)
	})
}

// apiRow is an API as the admin endpoint shows it. It holds no option of any guest, and so
// no secret.
type apiRow struct {
	ID          string      `json:"id"`
	Name        string      `json:"name,omitempty"`
	Version     string      `json:"version,omitempty"`
	Description string      `json:"description,omitempty"`
	Labels      []string    `json:"labels,omitempty"`
	Paths       []string    `json:"paths"`
	Hash        string      `json:"hash"`
	Entrypoints []wayRow    `json:"entrypoints"`
	Plans       []string    `json:"plans"`
	Sessions    int         `json:"sessions"`
	Channels    int         `json:"channels"`
	Endpoints   []statusRow `json:"endpoints"`
}

// wayRow is an entrypoint and the endpoints that were negotiated for it.
type wayRow struct {
	Type      string `json:"type"`
	QoS       string `json:"qos"`
	Publish   string `json:"publish,omitempty"`
	Subscribe string `json:"subscribe,omitempty"`
}

func (u *unit) row() apiRow {
	row := apiRow{
		ID: u.def.ID, Name: u.def.Name, Version: u.def.Version, Description: u.def.Description,
		Labels: u.def.Labels, Paths: u.def.Paths, Hash: u.hash,
		Sessions: len(sessions.selected(Selector{unit: u}, 0)), Channels: u.logs.len(),
		Endpoints: u.statusRows(),
	}
	for _, w := range u.ways {
		way := wayRow{Type: w.needs.Type, QoS: w.needs.QoS.String()}
		if w.pub != nil {
			way.Publish = w.pub.name
		}
		if w.sub != nil {
			way.Subscribe = w.sub.name
		}
		row.Entrypoints = append(row.Entrypoints, way)
	}
	for _, p := range u.plans {
		row.Plans = append(row.Plans, p.name)
	}
	return row
}

func (u *unit) statusRows() []statusRow {
	rows := make([]statusRow, len(u.eps))
	for i, e := range u.eps {
		rows[i] = statusRow{API: u.def.ID, Name: e.name, Type: e.kind, Status: e.guest.Status()}
	}
	return rows
}

func (a *adminAPI) apis(*http.Request) (any, error) {
	rows := []apiRow{}
	for _, u := range runtime.all() {
		rows = append(rows, u.row())
	}
	return rows, nil
}

func (a *adminAPI) api(r *http.Request) (any, error) {
	id := strings.TrimPrefix(r.URL.Path, "/message_api/apis/")
	if u := runtime.current(id); u != nil {
		return u.row(), nil
	}
	return nil, caddy.APIError{HTTPStatus: http.StatusNotFound, Err: fmt.Errorf("there is no message API %q", id)}
}

func (a *adminAPI) endpoints(*http.Request) (any, error) {
	rows := []statusRow{}
	for _, u := range runtime.all() {
		rows = append(rows, u.statusRows()...)
	}
	return rows, nil
}

// sessionRow is a session as the admin endpoint shows it.
type sessionRow struct {
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

const maxSessionRows = 1000

func (a *adminAPI) sessions(r *http.Request) (any, error) {
	q := r.URL.Query()
	limit := maxSessionRows
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: fmt.Errorf("limit %q is not a whole number of at least 1", text)}
		}
		limit = min(n, maxSessionRows)
	}
	rows := []sessionRow{}
	for _, s := range sessions.selected(Selector{
		API: q.Get("api"), Plan: q.Get("plan"), Application: q.Get("application"), Subscription: q.Get("subscription"),
	}, limit) {
		rows = append(rows, sessionRow{
			ID: s.id, API: s.principal.API, Entrypoint: s.way.needs.Type, Plan: s.principal.Plan,
			Application: s.principal.Application, Subscription: s.principal.Subscription,
			Client: s.identity.Client, RequestID: s.identity.RequestID, Since: s.started,
			Sent: s.sent.Load(), Received: s.received.Load(),
		})
	}
	slices.SortFunc(rows, func(a, b sessionRow) int { return cmp.Compare(a.ID, b.ID) })
	return rows, nil
}

// session ends one session.
func (a *adminAPI) session(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodDelete {
		w.Header().Set("Allow", http.MethodDelete)
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("%s is not for %s", r.Method, r.URL.Path)}
	}
	text := strings.TrimPrefix(r.URL.Path, "/message_api/sessions/")
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil || id == 0 {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: fmt.Errorf("session id %q is not a number", text)}
	}
	if End(Selector{ID: id}, entrypoints.End{Reason: entrypoints.EndOperator, Detail: "ended by an operator"}) == 0 {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: fmt.Errorf("there is no session %d", id)}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Interface guard.
var _ caddy.AdminRouter = (*adminAPI)(nil)
