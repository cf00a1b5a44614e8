package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

func (t *tool) deadLettersGroup() *cobra.Command {
	return t.group("dead-letters", "Messages that could not be delivered to a consumer", t.deadLettersList, t.deadLettersRedeliver)
}

const deadLetterHeader = "ID DIED REASON ATTEMPTS STATUS SIZE POSITION ERROR"

func (t *tool) deadLetterRow(l admin.DeadLetter) []string {
	return []string{
		l.ID, t.ago(l.Time), l.Reason, strconv.Itoa(l.Attempts), status(l.Status), strconv.Itoa(l.Size), l.Position, l.Error,
	}
}

func (t *tool) deadLettersList(a *adminFlags) *cobra.Command {
	var limit int
	cmd := t.admin(a, "list <subscription>", "Lists the first dead letters of a subscription", "They stay where they are.", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		if limit < 1 || limit > 1000 {
			return fmt.Errorf("--limit %d: write a number from 1 to 1000", limit)
		}
		letters, err := c.DeadLetters(ctx, args[0], limit)
		if err != nil {
			return err
		}
		return list(t, cmd, each(letters), deadLetterHeader, t.deadLetterRow)
	})
	cmd.Flags().IntVar(&limit, "limit", 100, "How many, at most")
	return cmd
}

// each yields what is there already.
func each[T any](items []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
	}
}

func (t *tool) deadLettersRedeliver(a *adminFlags) *cobra.Command {
	var (
		r            admin.RedeliverRequest
		since, until string
	)
	cmd := timeless(t, a, "redeliver <subscription>", "Sends dead letters to the consumer once more", `
Which ones is said by --id, by --since and --until, which are times of death, or by --all. A time
is a time, a day, or how long ago, like 2h. Those that are delivered are taken away, where the
broker's queue allows it; those that fail stay. Prints a line for each, and ends when it is
interrupted. The exit code is 1 if one has failed, or was not there.`, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		if len(r.IDs) == 0 && since == "" && until == "" && !r.All {
			return fmt.Errorf("which ones? Give --id, --since, --until or --all")
		}
		var err error
		if r.Since, err = t.pastFlag("since", since); err != nil {
			return err
		}
		if r.Until, err = t.pastFlag("until", until); err != nil {
			return err
		}
		report, err := c.Redeliver(ctx, args[0], r, func(one admin.Redelivered) error { return t.tellLetter(cmd, one) })
		if _, refused := errors.AsType[*admin.ProblemDetails](err); err != nil && (!refused || report.Read == 0) {
			return err // there is nothing to sum up
		}
		if failed := t.tellReport(cmd, report); err == nil {
			err = failed
		}
		return err
	})
	flags := cmd.Flags()
	flags.StringArrayVar(&r.IDs, "id", nil, "The letter with this id; may stand several times")
	flags.StringVar(&since, "since", "", "Those that died then or later")
	flags.StringVar(&until, "until", "", "Those that died before")
	flags.BoolVar(&r.All, "all", false, "All of them")
	flags.StringVar(&r.Rate, "rate", "", "How fast they are sent. Default: 10/1s")
	flags.BoolVar(&r.Keep, "keep", false, "Leave those that were delivered where they are too")
	return cmd
}

// pastFlag reads a time of a flag that lies behind; none if it is not given.
func (t *tool) pastFlag(flag, text string) (time.Time, error) {
	ahead, err := t.timeFlag(flag, text)
	if err != nil {
		return ahead, fmt.Errorf("--%s %q: write a time like 2026-12-31T23:00:00Z, a day (UTC) like 2026-12-31, or how long ago, like 2d or 12h", flag, text)
	}
	if text == "" || strings.ContainsAny(text, "-") { // a time and a day have their own place
		return ahead, nil
	}
	now := t.now().UTC()
	return now.Add(-ahead.Sub(now)), nil
}

func (t *tool) tellLetter(cmd *cobra.Command, one admin.Redelivered) error {
	if t.json {
		return t.tellJSON(cmd, one)
	}
	words := []string{one.ID, one.Outcome, status(one.Status), one.Error}
	if one.Removed {
		words = append(words, "and taken away")
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), strings.Join(strings.Fields(printable(strings.Join(words, " "))), " "))
	return err
}

func (t *tool) tellJSON(cmd *cobra.Command, v any) error {
	raw, err := appendJSON(nil, v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", raw)
	return err
}

// tellReport prints the summary. Its error says what has not succeeded.
func (t *tool) tellReport(cmd *cobra.Command, r admin.RedeliveryReport) error {
	var err error
	if t.json {
		err = t.tellJSON(cmd, map[string]admin.RedeliveryReport{"done": r})
	} else {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d read, %d delivered, %d failed, %d taken away\n", r.Read, r.Delivered, r.Failed, r.Removed)
	}
	if err != nil {
		return err
	}
	var wrong []string
	if r.Failed > 0 {
		wrong = append(wrong, fmt.Sprintf("%d of %d were not delivered", r.Failed, r.Delivered+r.Failed))
	}
	if len(r.Missing) > 0 {
		wrong = append(wrong, "there is no dead letter "+strings.Join(r.Missing, ", "))
	}
	if len(wrong) == 0 {
		return nil
	}
	return errors.New(strings.Join(wrong, "; "))
}
