package module

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/lifecycle"
	"github.com/caddy-message-api/caddy-message-api/store"
	"github.com/caddy-message-api/caddy-message-api/subscriptions"
	"github.com/caddy-message-api/caddy-message-api/workers"
)

func init() {
	caddy.RegisterModule(new(adminAPI))
}

// adminAPI puts the admin API on Caddy's admin endpoint. It keeps nothing: Caddy makes it
// before any app, and never cleans it up. What it answers is told in docs/admin-api.md.
type adminAPI struct{}

// CaddyModule implements caddy.Module.
func (*adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.message_api", New: func() caddy.Module { return new(adminAPI) }}
}

// Routes implements caddy.AdminRouter.
func (*adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: admin.Prefix, Handler: caddy.AdminHandlerFunc(serveAdmin)}}
}

func serveAdmin(w http.ResponseWriter, r *http.Request) error {
	f := theFacts.Load()
	if f == nil {
		problem := entrypoints.AsProblem(notOpen())
		problem.Slug = admin.Unavailable
		problem.Write(w, "")
		return nil
	}
	f.admin.ServeHTTP(w, r)
	return nil
}

// adminServer answers the admin API by the facts and what runs here.
func (f *facts) adminServer(log *zap.Logger) *admin.Server {
	return admin.New(admin.Deps{
		Lifecycle: f.lifecycle, Subscriptions: f.subscriptions,
		Logger: log.Named("admin"),
		Hooks: admin.Hooks{
			Running: running, Endpoints: endpointRows, Sessions: sessionRows, EndSession: endSession,
			Store: f.storeHooks(), Push: f.pushing.hooks(),
		},
	})
}

// running is what this node serves of an API.
func running(id string) (admin.Running, bool) {
	u := runtime.current(id)
	if u == nil {
		return admin.Running{}, false
	}
	row := admin.Running{
		Name: u.def.Name, Version: u.def.Version, Description: u.def.Description,
		Labels: u.def.Labels, Paths: u.def.Paths, Hash: u.hash,
		Sessions: len(sessions.selected(Selector{unit: u}, 0)), Channels: u.logs.len(),
		Endpoints: u.endpointRows(),
	}
	for _, w := range u.ways {
		way := admin.Entrypoint{Type: w.needs.Type, QoS: w.needs.QoS.String()}
		if w.pub != nil {
			way.Publish = w.pub.name
		}
		if w.sub != nil {
			way.Subscribe = w.sub.name
		}
		row.Entrypoints = append(row.Entrypoints, way)
	}
	return row, true
}

func (u *unit) endpointRows() []admin.Endpoint {
	rows := make([]admin.Endpoint, len(u.eps))
	for i, e := range u.eps {
		st := e.guest.Status()
		rows[i] = admin.Endpoint{API: u.def.ID, Name: e.name, Type: e.kind,
			State: string(st.State), Address: st.Address, Error: st.Error, Since: st.Since}
	}
	return rows
}

func endpointRows() []admin.Endpoint {
	rows := []admin.Endpoint{}
	for _, u := range runtime.all() {
		rows = append(rows, u.endpointRows()...)
	}
	return rows
}

func sessionRows(q admin.SessionQuery) []admin.Session {
	rows := []admin.Session{}
	for _, s := range sessions.selected(Selector{
		API: q.API, Plan: q.Plan, Application: q.Application, Subscription: q.Subscription,
	}, 0) {
		rows = append(rows, admin.Session{
			ID: s.id, API: s.principal.API, Entrypoint: s.way.needs.Type, Plan: s.principal.Plan,
			Application: s.principal.Application, Subscription: s.principal.Subscription,
			Client: s.identity.Client, RequestID: s.identity.RequestID, Since: s.started,
			Sent: s.sent.Load(), Received: s.received.Load(),
		})
	}
	slices.SortFunc(rows, func(a, b admin.Session) int { return cmp.Compare(a.ID, b.ID) })
	return rows
}

func endSession(id uint64) bool {
	return End(Selector{ID: id}, entrypoints.End{Reason: entrypoints.EndOperator, Detail: "ended by an operator"}) > 0
}

// storeHooks are those of the store; what keeps a managed API from being served is told with
// what is wrong in the store.
func (f *facts) storeHooks() admin.StoreHooks {
	hooks := admin.StoreHooksOf(f.store, mergeImported)
	ofStore := hooks.Status
	hooks.Status = func() admin.StoreStatus {
		status := ofStore()
		if app := currentApp(); app != nil {
			for id, detail := range app.managed.allProblems() {
				status.Problems = append(status.Problems, admin.StoreProblem{Path: "apis/" + id, Detail: detail})
			}
		}
		return status
	}
	return hooks
}

// mergeImported says what a record of a backup makes of the one that is there. A backup is
// older than what has happened since: who was sent away does not come back by it.
func mergeImported(old *store.Record, in store.Record) (store.Record, error) {
	out, err := lifecycle.Merge(old, in)
	if err != nil {
		return out, err
	}
	if out, err = workers.Merge(old, out); err != nil {
		return out, err
	}
	return subscriptions.Merge(old, out)
}

// Interface guard.
var _ caddy.AdminRouter = (*adminAPI)(nil)
