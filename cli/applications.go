package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

func (t *tool) applicationsGroup() *cobra.Command {
	return t.group("applications", "Applications: who consumes APIs",
		t.applicationsList, t.applicationsGet, t.applicationsCreate, t.applicationsUpdate, t.applicationsDelete)
}

func (t *tool) applicationRow(a admin.Application) []string {
	state := "live"
	if a.Archived {
		state = "archived"
	}
	return []string{a.ID, a.Name, a.ClientID, a.Owner, state, t.ago(a.CreatedAt)}
}

func (t *tool) applicationsList(a *adminFlags) *cobra.Command {
	return t.admin(a, "list", "Lists the applications", "", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, _ []string) error {
		return list(t, cmd, c.Applications(ctx), "ID NAME CLIENT_ID OWNER STATE CREATED", t.applicationRow)
	})
}

func (t *tool) applicationsGet(a *adminFlags) *cobra.Command {
	return t.admin(a, "get <application>", "Shows an application", "", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		app, err := c.Application(ctx, args[0])
		if err != nil {
			return err
		}
		return t.showApplication(cmd, app)
	})
}

func (t *tool) showApplication(cmd *cobra.Command, a admin.Application) error {
	if t.json {
		return show(cmd.OutOrStdout(), a)
	}
	d := new(details)
	d.add("ID", a.ID)
	d.add("Name", a.Name)
	d.add("Description", a.Description)
	d.add("Client id", a.ClientID)
	d.add("Owner", a.Owner)
	d.add("Archived", yesNo(a.Archived))
	d.add("Created", t.when(a.CreatedAt))
	d.add("Updated", t.when(a.UpdatedAt))
	d.add("ETag", version(a.ETag))
	return d.print(cmd.OutOrStdout())
}

func (t *tool) applicationsCreate(a *adminFlags) *cobra.Command {
	var (
		n     admin.NewApplication
		quiet bool
	)
	cmd := t.admin(a, "create <name>", "Makes an application", "", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		n.Name = args[0]
		app, err := c.CreateApplication(ctx, n)
		if err != nil {
			return err
		}
		if quiet {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), app.ID)
			return err
		}
		return t.showApplication(cmd, app)
	})
	flags := cmd.Flags()
	flags.StringVar(&n.ID, "id", "", "The id. Default: a random one")
	flags.StringVar(&n.Description, "description", "", "For people")
	flags.StringVar(&n.ClientID, "client-id", "", "What tokens name it by; needed for plans with tokens")
	flags.StringVar(&n.Owner, "owner", "", "Whose it is")
	flags.BoolVarP(&quiet, "quiet", "q", false, "Print the id alone")
	return cmd
}

func (t *tool) applicationsUpdate(a *adminFlags) *cobra.Command {
	var (
		w                                  writeFlags
		name, description, clientID, owner string
	)
	cmd := t.admin(a, "update <application>", "Changes an application", `An empty text takes a value away, like --client-id "".`, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		var patch admin.ApplicationPatch
		given := 0
		for flag, to := range map[string]struct {
			value string
			place *admin.Optional[string]
		}{
			"name": {name, &patch.Name}, "description": {description, &patch.Description},
			"client-id": {clientID, &patch.ClientID}, "owner": {owner, &patch.Owner},
		} {
			if cmd.Flags().Changed(flag) {
				*to.place = admin.Some(to.value)
				given++
			}
		}
		if given == 0 {
			return errors.New("nothing to change: give --name, --description, --client-id or --owner")
		}
		app, err := c.UpdateApplication(ctx, args[0], patch, etag(w.ifMatch))
		if err != nil {
			return err
		}
		return t.showApplication(cmd, app)
	})
	flags := cmd.Flags()
	flags.StringVar(&name, "name", "", "The name")
	flags.StringVar(&description, "description", "", "For people")
	flags.StringVar(&clientID, "client-id", "", "What tokens name it by")
	flags.StringVar(&owner, "owner", "", "Whose it is")
	w.flags(cmd, false)
	return cmd
}

func (t *tool) applicationsDelete(a *adminFlags) *cobra.Command {
	var w writeFlags
	cmd := t.admin(a, "delete <application>", "Archives an application and closes its subscriptions", "It stays to be seen, and never gets a subscription again.", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		app, err := c.ArchiveApplication(ctx, args[0], w.write())
		if err != nil {
			return err
		}
		return t.showApplication(cmd, app)
	})
	w.flags(cmd, true)
	return cmd
}
