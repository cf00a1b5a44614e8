package subscriptions

import (
	"context"
	"fmt"

	"github.com/caddy-message-api/caddy-message-api/store"
)

const reasonArchived = "the application was archived"

// CreateApplication makes an application. It takes ID, Name, Description, ClientID and Owner
// from app.
func (r *Registry) CreateApplication(ctx context.Context, by string, app Application) (Application, error) {
	now := r.now()
	created := Application{
		ID: app.ID, Name: app.Name, Description: app.Description, ClientID: app.ClientID, Owner: app.Owner,
		CreatedAt: now, UpdatedAt: now, UpdatedBy: by,
	}
	if created.ID == "" {
		created.ID = newID(now)
	}
	var c checks
	c.id("id", created.ID)
	c.application(&created)
	if err := c.err("the application"); err != nil {
		return Application{}, err
	}
	ref := applicationRef(created.ID)
	err := r.update(ctx, "creating the application", withClient([]store.Ref{ref}, created.ClientID), func(tx *store.Tx) (err error) {
		if _, there := tx.Get(ref); there {
			return conflict("there is already an application %q", created.ID)
		}
		if err := r.clientFree(created.ClientID, created.ID); err != nil {
			return err
		}
		created.Version, err = put(tx, ref, created)
		return err
	})
	if err != nil {
		return Application{}, err
	}
	return created, nil
}

// UpdateApplication changes an application. Sessions that came in by a client id that is
// changed end.
func (r *Registry) UpdateApplication(ctx context.Context, by, id string, version uint64, patch ApplicationPatch) (Application, error) {
	var changed Application
	ref := applicationRef(id)
	refs := []store.Ref{ref}
	if patch.ClientID != nil {
		refs = withClient(refs, *patch.ClientID)
	}
	needed := ""
	if patch.ClientID != nil && *patch.ClientID == "" {
		needed = r.needsClient(id)
	}
	err := r.update(ctx, "changing the application", refs, func(tx *store.Tx) error {
		app, err := find(tx, ref, readApplication)
		if err != nil {
			return err
		}
		if err := stale("application", version, app.Version); err != nil {
			return err
		}
		changed = app
		if err := r.patchApplication(&changed, patch, needed); err != nil || changed == app {
			return err
		}
		changed.UpdatedAt, changed.UpdatedBy = r.now(), by
		changed.Version, err = put(tx, ref, changed)
		return err
	})
	if err != nil {
		return Application{}, err
	}
	return changed, nil
}

// patchApplication changes app. needed names a plan for which it must keep a client id.
func (r *Registry) patchApplication(app *Application, patch ApplicationPatch, needed string) error {
	if app.Archived {
		return conflict("the application %q is archived: that is final; create another one", app.ID)
	}
	clientID := app.ClientID
	patch.apply(app)
	var c checks
	if c.application(app); len(c) > 0 {
		return c.err("the change")
	}
	if app.ClientID == clientID {
		return nil
	}
	if app.ClientID == "" && needed != "" {
		return conflict("%s needs the client id of the application: close that subscription first", needed)
	}
	return r.clientFree(app.ClientID, app.ID)
}

func (p ApplicationPatch) apply(app *Application) {
	for _, member := range []struct {
		to   *string
		from *string
	}{{&app.Name, p.Name}, {&app.Description, p.Description}, {&app.ClientID, p.ClientID}, {&app.Owner, p.Owner}} {
		if member.from != nil {
			*member.to = *member.from
		}
	}
}

// ArchiveApplication takes an application out of use, and closes its subscriptions; those
// that are pending are rejected. From the first moment on none of them lets in. Should closing
// them all not succeed, the same call again closes the rest, and so does time.
func (r *Registry) ArchiveApplication(ctx context.Context, by, id string, version uint64) (Application, error) {
	var archived Application
	ref := applicationRef(id)
	err := r.update(ctx, "archiving the application", []store.Ref{ref}, func(tx *store.Tx) error {
		app, err := find(tx, ref, readApplication)
		if err != nil {
			return err
		}
		if err := stale("application", version, app.Version); err != nil {
			return err
		}
		archived = app
		if app.Archived {
			return nil
		}
		archived.Archived, archived.UpdatedAt, archived.UpdatedBy = true, r.now(), by
		archived.Version, err = put(tx, ref, archived)
		return err
	})
	if err != nil {
		return Application{}, err
	}
	if n, err := r.closeAll(ctx, by, reasonArchived, r.index.liveOf(id), nil); err != nil {
		return archived, fmt.Errorf("the application is archived, and %d of its subscriptions are closed; the rest lets nobody in and is closed later: %w", n, err)
	}
	return archived, nil
}

func (c *checks) application(app *Application) {
	c.required("name", app.Name)
	c.line("name", app.Name, maxName)
	c.text("description", app.Description, maxText)
	c.clientID("client_id", app.ClientID)
	c.line("owner", app.Owner, maxName)
}

func withClient(refs []store.Ref, clientID string) []store.Ref {
	if clientID == "" {
		return refs
	}
	return append(refs, clientLock(clientID))
}

// clientFree checks that no other live application has the client id. Who asks holds its lock,
// so that nobody takes it meanwhile.
func (r *Registry) clientFree(clientID, id string) error {
	holder, there := r.index.clients.get(clientID)
	if clientID == "" || !there || holder.id == id || holder.archived() {
		return nil
	}
	return conflict("the application %q has the client id %q already", holder.id, clip(clientID))
}

// needsClient names a plan to which the application can't be subscribed without a client id.
func (r *Registry) needsClient(id string) string {
	r.index.mu.RLock()
	var names []planName
	if app := r.index.apps[id]; app != nil {
		for _, e := range app.subs.items {
			if s := e.state.Load(); s.status.Live() {
				names = append(names, planName{s.plan.api, s.plan.plan})
			}
		}
	}
	r.index.mu.RUnlock()
	for _, name := range names {
		if info, err := r.opts.Plan(name.api, name.plan); err == nil && byClient(info.Kind) {
			return fmt.Sprintf("the plan %q of %q", name.plan, name.api)
		}
	}
	return ""
}

// liveOf are the live subscriptions of an application.
func (x *index) liveOf(application string) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	app := x.apps[application]
	if app == nil {
		return nil
	}
	return app.subs.live()
}

func (o *ordered) live() []string {
	var ids []string
	for _, e := range o.items {
		if e.live() {
			ids = append(ids, e.id)
		}
	}
	return ids
}
