// Package cli is the command `caddy message-api`: what an operator does with a running
// gateway, through the admin API, and two clients for message APIs, publish and tail.
package cli

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "message-api",
		Usage: "<command>",
		Short: "Manages message APIs, and reads and publishes messages",
		Long: `
Manages the message APIs of a running Caddy through its admin endpoint: APIs and
their lifecycle, plans, applications, subscriptions, API keys, sessions, the store.

The admin endpoint is found as other caddy commands find it: --address, or the
"admin" of the configuration given by --config, or CADDY_ADMIN, or localhost:2019.

publish and tail are ordinary clients of a message API: they take its URL, and
need no access to the admin endpoint.`,
		CobraFunc: func(cmd *cobra.Command) { newTool().attach(cmd) },
	})
}

// tool is what the commands share.
type tool struct {
	// json prints what the admin API answers, instead of tables.
	json bool
	// timeout bounds one request.
	timeout time.Duration

	now    func() time.Time
	getenv func(string) string
	// terminal says whether a person reads what is written to w.
	terminal func(w io.Writer) bool
}

// defaultTimeout is longer than the gateway takes for anything: a publish may take 30 s.
const defaultTimeout = time.Minute

func newTool() *tool {
	return &tool{now: time.Now, getenv: os.Getenv, terminal: isTerminal}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// attach makes the tree of commands below cmd.
func (t *tool) attach(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.BoolVar(&t.json, "json", false, "Print JSON, as the admin API or the message API gives it")
	flags.DurationVar(&t.timeout, "timeout", defaultTimeout, "How long one request may take")
	asGroup(cmd)
	cmd.AddCommand(t.groups()...)
	cmd.AddCommand(t.publishCommand(), t.tailCommand())
}

// asGroup makes cmd a command that only has commands below it, and says so when it gets
// anything else: cobra would print the help, and succeed.
func asGroup(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		var names []string
		for _, sub := range cmd.Commands() {
			names = append(names, sub.Name())
		}
		return fail(cmd, fmt.Errorf("unknown command %q for %q: use %s", args[0], cmd.CommandPath(), strings.Join(names, ", ")))
	}
}

// command makes a command whose errors are reported by report. args are the names of its
// arguments; the last can be optional, in brackets.
func command(use, short, long string, run func(ctx context.Context, cmd *cobra.Command, args []string) error) *cobra.Command {
	least, most := 0, 0
	for _, word := range strings.Fields(use)[1:] {
		most++
		if !strings.HasPrefix(word, "[") {
			least++
		}
		if strings.HasSuffix(word, "...]") {
			most = math.MaxInt
		}
	}
	return &cobra.Command{
		Use: use, Short: short, Long: short + ".\n\n" + strings.TrimSpace(long),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) >= least && len(args) <= most {
				return nil
			}
			return fail(cmd, fmt.Errorf("%d arguments are too few or too many: %s %s", len(args), cmd.Parent().CommandPath(), use))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := run(cmd.Context(), cmd, args); err != nil {
				return fail(cmd, err)
			}
			return nil
		},
	}
}

// fail reports err, and keeps cobra from doing it once more.
func fail(cmd *cobra.Command, err error) error {
	cmd.SilenceErrors = true
	report(cmd.ErrOrStderr(), err)
	return err
}
