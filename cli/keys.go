package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

func (t *tool) keysGroup() *cobra.Command {
	return t.group("keys", "API keys of a subscription",
		t.keysList, t.keysCreate, t.keysRenew, t.keysRevoke, t.keysExpire)
}

const keyHeader = "ID SUBSCRIPTION HINT STATE CREATED EXPIRES"

func (t *tool) keyRow(k admin.Key) []string {
	hint := ""
	if k.Hint != "" {
		hint = "…" + k.Hint
	}
	return []string{k.ID, k.Subscription, hint, t.keyState(k), t.ago(k.CreatedAt), t.ago(k.Expires)}
}

func (t *tool) keyState(k admin.Key) string {
	switch {
	case !k.RevokedAt.IsZero():
		return "revoked"
	case !k.Expires.IsZero() && !k.Expires.After(t.now()):
		return "expired"
	}
	return "live"
}

func (t *tool) keysList(a *adminFlags) *cobra.Command {
	return t.admin(a, "list <subscription>", "Lists the keys of a subscription", "Those that are no good any more too.", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		return list(t, cmd, c.Keys(ctx, args[0]), keyHeader, t.keyRow)
	})
}

// showNewKey prints a key that was made, this once.
func (t *tool) showNewKey(cmd *cobra.Command, k admin.NewKey, quiet bool) error {
	out := cmd.OutOrStdout()
	switch {
	case quiet:
		_, err := fmt.Fprintln(out, k.Secret)
		return err
	case t.json:
		return show(out, k)
	}
	d := new(details)
	d.add("ID", k.ID)
	d.add("Subscription", k.Subscription)
	d.add("Created", t.when(k.CreatedAt))
	d.add("Expires", t.when(k.Expires))
	d.add("Key", k.Secret)
	if err := d.print(out); err != nil {
		return err
	}
	return onceOnly(cmd, "key")
}

func (t *tool) showKeyRow(cmd *cobra.Command, k admin.Key) error {
	if t.json {
		return show(cmd.OutOrStdout(), k)
	}
	table := newTable(cmd.OutOrStdout(), "ID", "SUBSCRIPTION", "HINT", "STATE", "CREATED", "EXPIRES")
	table.row(t.keyRow(k)...)
	return table.flush()
}

func (t *tool) keysCreate(a *adminFlags) *cobra.Command {
	var (
		k       keyFlags
		expires string
	)
	cmd := t.admin(a, "create <subscription>", "Makes one more key", "The key is printed this once, with --quiet alone on its line.", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		var r admin.KeyRequest
		var err error
		if r.Expires, err = t.timeFlag("expires", expires); err != nil {
			return err
		}
		if r.Key, err = k.key(); err != nil {
			return err
		}
		made, err := c.AddKey(ctx, args[0], r)
		if err != nil {
			return err
		}
		return t.showNewKey(cmd, made, k.quiet)
	})
	cmd.Flags().StringVar(&expires, "expires", "", "When it ends: a time, a day, or how long from now")
	k.flags(cmd.Flags())
	return cmd
}

func (t *tool) keysRenew(a *adminFlags) *cobra.Command {
	var (
		w     writeFlags
		quiet bool
	)
	cmd := t.admin(a, "renew <key>", "Makes a new key, and has the others of its subscription end soon", "The key is printed this once, with --quiet alone on its line.", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		made, err := c.RenewKey(ctx, args[0], w.write())
		if err != nil {
			return err
		}
		return t.showNewKey(cmd, made, quiet)
	})
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print the new key alone")
	w.flags(cmd, true)
	return cmd
}

func (t *tool) keysRevoke(a *adminFlags) *cobra.Command {
	var w writeFlags
	cmd := t.admin(a, "revoke <key>", "Takes a key back at once", "Its sessions end.", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		k, err := c.RevokeKey(ctx, args[0], w.write())
		if err != nil {
			return err
		}
		return t.showKeyRow(cmd, k)
	})
	w.flags(cmd, true)
	return cmd
}

func (t *tool) keysExpire(a *adminFlags) *cobra.Command {
	var w writeFlags
	cmd := t.admin(a, "expire <key> <when>", "Has a key end at a time", `
A time like 2026-12-31T23:00:00Z, a day (UTC) like 2026-12-31, or how long from now, like 90d.
It ends with its subscription at the latest.`, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		at, err := t.parseTime("the time", args[1])
		if err != nil {
			return err
		}
		k, err := c.ExpireKey(ctx, args[0], at, etag(w.ifMatch))
		if err != nil {
			return err
		}
		return t.showKeyRow(cmd, k)
	})
	w.flags(cmd, false)
	return cmd
}
