package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

// apisSave saves the definition of a managed API.
func (t *tool) apisSave(a *adminFlags) *cobra.Command {
	var (
		w      writeFlags
		s      admin.Save
		dryRun bool
	)
	cmd := t.admin(a, "save [<api>] <file>", "Saves the definition of a managed API", `
The file (- is the standard input) holds JSON, or the block that would stand in a site of a
Caddyfile:

    message_api /orders {
        entrypoint sse
        endpoint   mock
        plan       api_key
    }

Any other format that a config adapter reads is named by --adapter. Without <api> the id is that
of the definition, else its first path in kebab case. Saving does not change what is served:
--deploy does both, or neither.`, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		name, text, err := readDefinition(args[len(args)-1], cmd.InOrStdin())
		if err != nil {
			return err
		}
		definition, err := definitionOf(name, text, a.fileAdapter())
		if err != nil {
			return err
		}
		id := args[0]
		if len(args) == 1 {
			if id, err = idOf(definition); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if dryRun {
			dry, err := c.CheckAPI(ctx, id, definition, s.Deploy)
			if err != nil {
				return err
			}
			return t.showDry(cmd, id, dry)
		}
		s.IfMatch = etag(w.ifMatch)
		api, err := c.SaveAPI(ctx, id, definition, s)
		if err != nil {
			return err
		}
		return t.showAPIRow(cmd, api)
	})
	flags := cmd.Flags()
	flags.BoolVar(&s.Deploy, "deploy", false, "Deploy it too")
	flags.BoolVar(&s.CreateOnly, "create", false, "Fail if there is such an API already")
	flags.BoolVar(&dryRun, "dry-run", false, "Check it, and save nothing")
	w.flags(cmd, false)
	return cmd
}

// fileAdapter is the adapter for a file that is saved.
func (a *adminFlags) fileAdapter() string {
	if a.config != "" {
		return "" // then it is for the configuration, and the file speaks for itself
	}
	return a.adapter
}

func (t *tool) showDry(cmd *cobra.Command, id string, dry admin.Dry) error {
	if t.json {
		return show(cmd.OutOrStdout(), dry)
	}
	var plans []string
	for _, p := range dry.Plans {
		plans = append(plans, p.Name)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is valid, with paths %s and plans %s; nothing was saved\n",
		id, cell(strings.Join(dry.Paths, ", ")), cell(strings.Join(plans, ", ")))
	return err
}

const planHeader = "PLAN KIND STAGE SAVED DEPLOYED"

func planRow(p admin.Plan) []string {
	return []string{p.Name, p.Kind, p.Stage, yesNo(p.Saved), yesNo(p.Deployed)}
}

type planAction func(*admin.Client, context.Context, string, string, admin.Write) (admin.Plan, error)

func (t *tool) plansGroup() *cobra.Command {
	return t.group("plans", "Plans of an API",
		t.plansList, t.plansPut,
		t.planAction("publish", "Lets applications subscribe to a plan in staging", "It is served from the next deploy on.", (*admin.Client).PublishPlan),
		t.planAction("deprecate", "Refuses new subscriptions to a plan", "Subscriptions that there are go on.", (*admin.Client).DeprecatePlan),
		t.planAction("close", "Closes a plan and every subscription to it, for ever", "This takes effect at once, without a deploy.", (*admin.Client).ClosePlan),
		t.plansDelete,
	)
}

func (t *tool) plansList(a *adminFlags) *cobra.Command {
	return t.admin(a, "list <api>", "Lists the plans of an API", "", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		return list(t, cmd, c.Plans(ctx, args[0]), planHeader, planRow)
	})
}

func (t *tool) showPlanRow(cmd *cobra.Command, p admin.Plan) error {
	if t.json {
		return show(cmd.OutOrStdout(), p)
	}
	table := newTable(cmd.OutOrStdout(), strings.Fields(planHeader)...)
	table.row(planRow(p)...)
	return table.flush()
}

func (t *tool) plansPut(a *adminFlags) *cobra.Command {
	var w writeFlags
	cmd := t.admin(a, "put <api> <plan> <file>", "Saves a plan of a managed API", `
The file (- is the standard input) holds JSON, or the block that would stand in the API's block
of a Caddyfile, like: plan api_key { ... }. A new plan is in staging.`, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		name, text, err := readDefinition(args[2], cmd.InOrStdin())
		if err != nil {
			return err
		}
		var definition json.RawMessage
		if definition, err = planOf(name, text, a.fileAdapter(), args[1]); err != nil {
			return err
		}
		p, err := c.PutPlan(ctx, args[0], args[1], definition, etag(w.ifMatch))
		if err != nil {
			return err
		}
		return t.showPlanRow(cmd, p)
	})
	w.flags(cmd, false)
	return cmd
}

func (t *tool) planAction(name, short, long string, act planAction) func(*adminFlags) *cobra.Command {
	return func(a *adminFlags) *cobra.Command {
		var w writeFlags
		cmd := t.admin(a, name+" <api> <plan>", short, long, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
			p, err := act(c, ctx, args[0], args[1], w.write())
			if err != nil {
				return err
			}
			return t.showPlanRow(cmd, p)
		})
		w.flags(cmd, true)
		return cmd
	}
}

func (t *tool) plansDelete(a *adminFlags) *cobra.Command {
	var w writeFlags
	cmd := t.admin(a, "delete <api> <plan>", "Takes a plan out of the saved definition of a managed API", "It must not have live subscriptions.", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		if err := c.DeletePlan(ctx, args[0], args[1], w.write()); err != nil {
			return err
		}
		return t.done(cmd, "deleted plan "+args[1]+" of API "+args[0])
	})
	w.flags(cmd, true)
	return cmd
}
