package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

func (t *tool) endpointsCommand() *cobra.Command {
	a := new(adminFlags)
	cmd := t.admin(a, "endpoints", "Lists the connections to brokers", "Those of the node that answers.", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, _ []string) error {
		return list(t, cmd, c.Endpoints(ctx), "API ENDPOINT TYPE STATE SINCE ADDRESS ERROR", func(e admin.Endpoint) []string {
			return []string{e.API, e.Name, e.Type, e.State, t.ago(e.Since), e.Address, e.Error}
		})
	})
	a.flags(cmd)
	return cmd
}

func (t *tool) sessionsGroup() *cobra.Command {
	return t.group("sessions", "Open sessions of clients", t.sessionsList, t.sessionsEnd)
}

func (t *tool) sessionsList(a *adminFlags) *cobra.Command {
	var q admin.SessionQuery
	cmd := t.admin(a, "list", "Lists open sessions, oldest first", "Those of the node that answers.", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, _ []string) error {
		return list(t, cmd, c.Sessions(ctx, q), "ID API ENTRYPOINT PLAN APPLICATION CLIENT SINCE SENT RECEIVED", func(s admin.Session) []string {
			return []string{
				strconv.FormatUint(s.ID, 10), s.API, s.Entrypoint, s.Plan, s.Application, s.Client,
				t.ago(s.Since), strconv.FormatInt(s.Sent, 10), strconv.FormatInt(s.Received, 10),
			}
		})
	})
	flags := cmd.Flags()
	flags.StringVar(&q.API, "api", "", "Only those of this API")
	flags.StringVar(&q.Plan, "plan", "", "Only those of this plan")
	flags.StringVar(&q.Application, "application", "", "Only those of this application")
	flags.StringVar(&q.Subscription, "subscription", "", "Only those of this subscription")
	return cmd
}

func (t *tool) sessionsEnd(a *adminFlags) *cobra.Command {
	return t.admin(a, "end <session>", "Ends a session", "The client is told that an operator did, and that it should not come back.", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		id, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil || id == 0 {
			return fmt.Errorf("%q is no number of a session: `sessions list` tells them", args[0])
		}
		if err := c.EndSession(ctx, id); err != nil {
			return err
		}
		return t.done(cmd, "ended session "+args[0])
	})
}

func (t *tool) storeGroup() *cobra.Command {
	return t.group("store", "Where managed APIs, applications and subscriptions are kept",
		t.storeStatus, t.storeSync, t.storeExport, t.storeImport)
}

func (t *tool) storeStatus(a *adminFlags) *cobra.Command {
	return t.admin(a, "status", "Shows nodes, records and problems of the store", "", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, _ []string) error {
		s, err := c.Store(ctx)
		if err != nil {
			return err
		}
		return t.showStore(cmd.OutOrStdout(), s)
	})
}

func (t *tool) storeSync(a *adminFlags) *cobra.Command {
	return t.admin(a, "sync", "Has the node read now what others changed", "", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, _ []string) error {
		s, err := c.SyncStore(ctx)
		if err != nil {
			return err
		}
		return t.showStore(cmd.OutOrStdout(), s)
	})
}

func (t *tool) showStore(out io.Writer, s admin.StoreStatus) error {
	if t.json {
		return show(out, s)
	}
	nodes := newTable(out, "NODE", "ALIVE", "SEEN", "SEQUENCE", "SELF")
	for _, n := range s.Nodes {
		nodes.row(n.ID, yesNo(n.Alive), t.ago(n.Seen), strconv.FormatUint(n.Sequence, 10), yesNo(n.Self))
	}
	nodes.row()
	nodes.row("RECORDS", "COUNT")
	for _, kind := range slices.Sorted(maps.Keys(s.Records)) {
		nodes.row(kind, strconv.Itoa(s.Records[kind]))
	}
	if err := nodes.flush(); err != nil || len(s.Problems) == 0 {
		return err
	}
	problems := newTable(out)
	problems.row()
	problems.row("PROBLEM", "SEEN", "DETAIL")
	for _, p := range s.Problems {
		problems.row(p.Path, t.ago(p.At), p.Detail)
	}
	return problems.flush()
}

// timeless is for what may take as long as it takes, unless --timeout is given.
func timeless(t *tool, a *adminFlags, use, short, long string, run adminRun) *cobra.Command {
	cmd := t.admin(a, use, short, long, run)
	inner := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("timeout") {
			t.timeout = forever
		}
		return inner(cmd, args)
	}
	return cmd
}

const forever = 1 << 62

func (t *tool) storeExport(a *adminFlags) *cobra.Command {
	return timeless(t, a, "export <file>", "Writes everything in the store to a file, or - for the standard output", `
There are no API keys in it, but what their hashes are made with: keep it as you keep
secrets. A file is readable for its owner alone, and replaced only by a complete export.`, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		if args[0] != "-" {
			return exportFile(ctx, c, args[0])
		}
		if t.terminal(cmd.OutOrStdout()) {
			return errors.New("an export is as secret as keys are, and does not belong on a terminal: name a file")
		}
		return c.Export(ctx, cmd.OutOrStdout())
	})
}

// exportFile writes beside the file first, so that what breaks off replaces nothing.
func exportFile(ctx context.Context, c *admin.Client, path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreClosed(f.Close()), os.Remove(f.Name()))
		}
	}()
	if err := c.Export(ctx, f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func (t *tool) storeImport(a *adminFlags) *cobra.Command {
	return timeless(t, a, "import <file>", "Merges an export into the store", `
The file may be - for the standard input. What is newer in the store stays, and what is
deprecated or closed stays so. What was not taken is told.`, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		source := cmd.InOrStdin()
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			source = f
		}
		report, err := c.Import(ctx, source)
		if err != nil {
			return err
		}
		return t.showImport(cmd.OutOrStdout(), report)
	})
}

func (t *tool) showImport(out io.Writer, r admin.ImportReport) error {
	if t.json {
		return show(out, r)
	}
	if _, err := fmt.Fprintf(out, "%d added, %d updated, %d unchanged, %d skipped\n", r.Added, r.Updated, r.Unchanged, len(r.Skipped)); err != nil || len(r.Skipped) == 0 {
		return err
	}
	table := newTable(out, strings.Fields("KIND ID REASON")...)
	for _, s := range r.Skipped {
		table.row(s.Kind, s.ID, s.Reason)
	}
	return table.flush()
}
