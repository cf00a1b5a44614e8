package lifecycle

import (
	"context"
	"slices"
	"strings"
)

// Start lets clients use a stopped API again. A managed one must have been deployed.
func (r *Registry) Start(ctx context.Context, by, id string, version uint64) (API, error) {
	return r.update(ctx, by, id, version, func(c *change) error {
		if !c.isDeclared && c.rec.Deployed == nil {
			return conflict("API %s was never deployed: deploy it, which also starts it", id)
		}
		c.rec.Stopped = false
		return nil
	})
}

// Stop ends the use of an API: its clients get 404 and its sessions end. Stopping one that
// was never deployed changes nothing.
func (r *Registry) Stop(ctx context.Context, by, id string, version uint64) (API, error) {
	return r.update(ctx, by, id, version, func(c *change) error {
		if c.rec.started(c.isDeclared) {
			c.rec.Stopped = true
		}
		return nil
	})
}

// Publish shows an API to its members.
func (r *Registry) Publish(ctx context.Context, by, id string, version uint64) (API, error) {
	return r.update(ctx, by, id, version, func(c *change) error {
		if err := c.notDeprecated("published"); err != nil {
			return err
		}
		c.rec.Published = true
		return nil
	})
}

// Unpublish hides an API from everybody, whether it is public or not.
func (r *Registry) Unpublish(ctx context.Context, by, id string, version uint64) (API, error) {
	return r.update(ctx, by, id, version, func(c *change) error {
		c.rec.Published = false
		return nil
	})
}

// MakePublic shows an API to everybody, while it is published.
func (r *Registry) MakePublic(ctx context.Context, by, id string, version uint64) (API, error) {
	return r.setPublic(ctx, by, id, version, true)
}

// MakePrivate shows an API to its members alone, while it is published.
func (r *Registry) MakePrivate(ctx context.Context, by, id string, version uint64) (API, error) {
	return r.setPublic(ctx, by, id, version, false)
}

func (r *Registry) setPublic(ctx context.Context, by, id string, version uint64, public bool) (API, error) {
	return r.update(ctx, by, id, version, func(c *change) error {
		if err := c.notDeprecated("made public or private"); err != nil {
			return err
		}
		c.rec.Public = public
		return nil
	})
}

func (c *change) notDeprecated(what string) error {
	if c.rec.Deprecated {
		return conflict("API %s is deprecated, which is for ever, and can't be %s any more; it can be unpublished", c.id, what)
	}
	return nil
}

// Deprecate refuses all new subscriptions to an API, for ever. Those that there are go on.
func (r *Registry) Deprecate(ctx context.Context, by, id string, version uint64) (API, error) {
	return r.update(ctx, by, id, version, func(c *change) error {
		c.rec.Deprecated = true
		return nil
	})
}

const (
	maxMembers      = 1000
	maxMemberLength = 256
)

// SetMembers replaces the members of an API: users by their name, groups as
// "group:<name>".
func (r *Registry) SetMembers(ctx context.Context, by, id string, version uint64, members []string) (API, error) {
	if len(members) > maxMembers {
		return API{}, invalid("members", "%d are too many: at most %d; use groups", len(members), maxMembers)
	}
	for _, m := range members {
		name := strings.TrimPrefix(m, groupPrefix)
		if name == "" || len(m) > maxMemberLength || strings.ContainsFunc(m, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return API{}, invalid("members", "%.80q: use the name of a user or group:<name>, at most %d bytes and without control characters", m, maxMemberLength)
		}
	}
	sorted := slices.Compact(slices.Sorted(slices.Values(members)))
	return r.update(ctx, by, id, version, func(c *change) error {
		c.rec.Members = sorted
		return nil
	})
}
