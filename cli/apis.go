package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

// groups are all commands that speak to the admin endpoint.
func (t *tool) groups() []*cobra.Command {
	return []*cobra.Command{
		t.apisGroup(), t.plansGroup(), t.applicationsGroup(), t.subscriptionsGroup(), t.keysGroup(),
		t.deliveriesCommand(), t.deadLettersGroup(), t.endpointsCommand(), t.sessionsGroup(), t.storeGroup(),
	}
}

type apiAction func(*admin.Client, context.Context, string, admin.Write) (admin.API, error)

func (t *tool) apisGroup() *cobra.Command {
	return t.group("apis", "APIs and their lifecycle",
		t.apisList, t.apisGet, t.apisSave,
		t.apiAction("deploy", "Serves what is saved, on every node", "The first time this starts the API too.", (*admin.Client).DeployAPI),
		t.apiAction("start", "Serves what is deployed", "", (*admin.Client).StartAPI),
		t.apiAction("stop", "Ends the sessions of an API and answers 404 in its place", "", (*admin.Client).StopAPI),
		t.apiAction("publish", "Puts an API into the catalogue", "Its members see it, or everybody if it is public.", (*admin.Client).PublishAPI),
		t.apiAction("unpublish", "Takes an API out of the catalogue", "", (*admin.Client).UnpublishAPI),
		t.apiAction("public", "Shows a published API to everybody", "", (*admin.Client).MakeAPIPublic),
		t.apiAction("private", "Shows a published API to its members alone", "", (*admin.Client).MakeAPIPrivate),
		t.apiAction("deprecate", "Refuses new subscriptions to an API, for ever", "Subscriptions that there are go on.", (*admin.Client).DeprecateAPI),
		t.apisDelete, t.apisMembers,
	)
}

const apiHeader = "ID STATE SYNC CATALOGUE PLANS SESSIONS PATHS UPDATED"

func (t *tool) apiRow(api admin.API) []string {
	sessions := ""
	if api.Running != nil {
		sessions = strconv.Itoa(api.Running.Sessions)
	}
	var plans []string
	for _, p := range api.Plans {
		plans = append(plans, p.Name)
	}
	return []string{
		api.ID, state(api), inSync(api), catalogue(api), strings.Join(plans, ","), sessions,
		strings.Join(api.Paths, ","), t.ago(api.UpdatedAt),
	}
}

func state(api admin.API) string {
	if api.Deprecated {
		return api.State + ",deprecated"
	}
	return api.State
}

func inSync(api admin.API) string {
	switch {
	case !api.Managed:
		return "caddyfile"
	case api.OutOfSync:
		return "out of sync"
	}
	return "in sync"
}

func catalogue(api admin.API) string {
	switch {
	case !api.Published:
		return ""
	case api.Public:
		return "public"
	}
	return "private"
}

func (t *tool) apisList(a *adminFlags) *cobra.Command {
	var q admin.APIQuery
	cmd := t.admin(a, "list", "Lists the APIs, or the catalogue that a user sees", "", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, _ []string) error {
		return list(t, cmd, c.APIs(ctx, q), apiHeader, t.apiRow)
	})
	cmd.Flags().StringVar(&q.VisibleTo, "visible-to", "", "Only what this user sees in the catalogue")
	cmd.Flags().StringSliceVar(&q.Groups, "user-group", nil, "Groups of that user")
	return cmd
}

func (t *tool) apisGet(a *adminFlags) *cobra.Command {
	var definition bool
	cmd := t.admin(a, "get <api>", "Shows an API", "--json shows the saved and the deployed definition too.", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		api, err := c.API(ctx, args[0])
		if err != nil {
			return err
		}
		if !definition {
			return t.showAPI(cmd.OutOrStdout(), api)
		}
		if api.Saved == nil {
			return fmt.Errorf("%s is written in the Caddyfile: its definition is not in the store", api.ID)
		}
		return show(cmd.OutOrStdout(), api.Saved.Definition)
	})
	cmd.Flags().BoolVar(&definition, "definition", false, "Print the saved definition alone, which can be changed and saved again")
	return cmd
}

// showAPI prints all about an API but its definitions.
func (t *tool) showAPI(out io.Writer, api admin.API) error {
	if t.json {
		return show(out, api)
	}
	d := new(details)
	d.add("ID", api.ID)
	d.add("Name", api.Name)
	d.add("Version", api.Version)
	d.add("Description", api.Description)
	d.add("Labels", strings.Join(api.Labels, ", "))
	d.add("Paths", strings.Join(api.Paths, ", "))
	d.add("State", strings.ReplaceAll(state(api), ",", ", ")+", "+inSync(api))
	d.add("Catalogue", catalogue(api))
	d.add("Members", strings.Join(api.Members, ", "))
	d.add("Saved", t.revision(api.Saved))
	d.add("Deployed", t.revision(api.Deployed))
	d.add("Created", t.when(api.CreatedAt))
	d.add("Updated", t.whenBy(api.UpdatedAt, api.UpdatedBy))
	d.add("ETag", version(api.ETag))
	if r := api.Running; r != nil {
		for _, e := range r.Entrypoints {
			d.add("Entrypoint", entrypointText(e))
		}
		for _, e := range r.Endpoints {
			d.add("Endpoint", strings.TrimSpace(e.Name+" "+e.State+" "+e.Address+" "+e.Error))
		}
		d.add("Sessions", strconv.Itoa(r.Sessions))
	}
	if err := d.print(out); err != nil || len(api.Plans) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	plans := newTable(out, strings.Fields(planHeader)...)
	for _, p := range api.Plans {
		plans.row(planRow(p)...)
	}
	return plans.flush()
}

func entrypointText(e admin.Entrypoint) string {
	text := e.Type + " " + e.QoS
	if e.Publish != "" {
		text += ", to " + e.Publish
	}
	if e.Subscribe != "" {
		text += ", from " + e.Subscribe
	}
	return text
}

func (t *tool) revision(r *admin.Revision) string {
	if r == nil {
		return ""
	}
	return "revision " + strconv.Itoa(r.Number) + ", " + t.whenBy(r.At, r.By)
}

// showAPIRow prints an API that was changed.
func (t *tool) showAPIRow(cmd *cobra.Command, api admin.API) error {
	if t.json {
		return show(cmd.OutOrStdout(), api)
	}
	table := newTable(cmd.OutOrStdout(), strings.Fields(apiHeader)...)
	table.row(t.apiRow(api)...)
	return table.flush()
}

// apiAction makes the command of a lifecycle action.
func (t *tool) apiAction(name, short, long string, act apiAction) func(*adminFlags) *cobra.Command {
	return func(a *adminFlags) *cobra.Command {
		var w writeFlags
		cmd := t.admin(a, name+" <api>", short, long, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
			api, err := act(c, ctx, args[0], w.write())
			if err != nil {
				return err
			}
			return t.showAPIRow(cmd, api)
		})
		w.flags(cmd, true)
		return cmd
	}
}

func (t *tool) apisDelete(a *adminFlags) *cobra.Command {
	var w writeFlags
	cmd := t.admin(a, "delete <api>", "Deletes a managed API", "It must be stopped, and all its plans must be deleted.", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		if err := c.DeleteAPI(ctx, args[0], w.write()); err != nil {
			return err
		}
		return t.done(cmd, "deleted API "+args[0])
	})
	w.flags(cmd, true)
	return cmd
}

// done says in words that something was done of which nothing is left to show.
func (t *tool) done(cmd *cobra.Command, text string) error {
	if t.json {
		return nil // a 204
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}

func (t *tool) apisMembers(a *adminFlags) *cobra.Command {
	var w writeFlags
	var clear bool
	cmd := t.admin(a, "members <api> [<member>...]", "Shows the members of an API, or replaces them", `
A member is a user, or group:<name>. Members see a published API while it is private.`, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		var api admin.API
		var err error
		switch {
		case clear && len(args) > 1:
			return fmt.Errorf("--clear takes all members away: name none")
		case clear || len(args) > 1:
			api, err = c.SetMembers(ctx, args[0], args[1:], etag(w.ifMatch))
		default:
			api, err = c.API(ctx, args[0])
		}
		if err != nil {
			return err
		}
		if t.json {
			return show(cmd.OutOrStdout(), admin.Members{Members: append([]string{}, api.Members...)})
		}
		for _, m := range api.Members {
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), printable(m)); err != nil {
				return err
			}
		}
		return nil
	})
	w.flags(cmd, false)
	cmd.Flags().BoolVar(&clear, "clear", false, "Take all members away")
	return cmd
}
