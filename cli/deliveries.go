package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

const deliveryHeader = "SUBSCRIPTION API STATE SINCE DELIVERED FAILED DEAD SKIPPED PARKED CALLBACK CAUSE"

func (t *tool) deliveryRow(d admin.Delivery) []string {
	return []string{
		d.Subscription, d.API, d.State, t.ago(d.Since), count(d.Delivered), count(d.Failed), count(d.Dead), count(d.Skipped),
		strconv.Itoa(d.ParkedMessages), d.Callback, d.Cause,
	}
}

func count(n int64) string { return strconv.FormatInt(n, 10) }

func (t *tool) deliveriesCommand() *cobra.Command {
	a := new(adminFlags)
	var q admin.DeliveryQuery
	cmd := t.admin(a, "deliveries", "Lists the deliveries to consumers", `
Those of the subscriptions to plans that push, and of the subscriptions that are written in the
Caddyfile, whose ids are <api>.<name>.`, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, _ []string) error {
		return list(t, cmd, c.Deliveries(ctx, q), deliveryHeader, t.deliveryRow)
	})
	a.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&q.API, "api", "", "Only those of this API")
	flags.StringVar(&q.State, "state", "", "Only waiting, running, trouble, failed or stopped ones")
	return cmd
}

func (t *tool) subscriptionsDelivery(a *adminFlags) *cobra.Command {
	return t.admin(a, "delivery <subscription>", "Shows how delivery to a consumer goes", "With what waits for its next attempt, and the last attempts.", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		d, err := c.Delivery(ctx, args[0])
		if err != nil {
			return err
		}
		return t.showDelivery(cmd, d)
	})
}

func (t *tool) subscriptionsRetry(a *adminFlags) *cobra.Command {
	var w writeFlags
	cmd := t.admin(a, "retry <subscription>", "Has a delivery that has failed start again", "It begins with the message at which it stopped.", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		d, err := c.RetryDelivery(ctx, args[0], admin.Write{Reason: w.reason})
		if err != nil {
			return err
		}
		return t.showDelivery(cmd, d)
	})
	w.reasonFlag(cmd)
	return cmd
}

// showDelivery prints all about a delivery.
func (t *tool) showDelivery(cmd *cobra.Command, v admin.Delivery) error {
	out := cmd.OutOrStdout()
	if t.json {
		return show(out, v)
	}
	d := new(details)
	d.add("Subscription", v.Subscription)
	d.add("API", v.API)
	d.add("Plan", v.Plan)
	d.add("Application", v.Application)
	if v.Static {
		d.add("Written in", "the Caddyfile")
	}
	d.add("State", v.State)
	d.add("Cause", v.Cause)
	d.add("Since", t.when(v.Since))
	d.add("Node", owner(v))
	d.add("Callback", v.Callback)
	if v.Backlog != nil {
		d.add("Backlog", count(*v.Backlog))
	}
	d.add("Delivered", count(v.Delivered))
	d.add("Failed", count(v.Failed))
	d.add("Dead", count(v.Dead))
	d.add("Skipped", count(v.Skipped))
	d.add("Parked", strconv.Itoa(v.ParkedMessages))
	if err := d.print(out); err != nil {
		return err
	}
	if err := t.showParked(out, v.Parked); err != nil {
		return err
	}
	return t.showRecent(out, v.Recent)
}

func (t *tool) showParked(out io.Writer, list []admin.Parked) error {
	if len(list) == 0 {
		return nil
	}
	table := newTable(out)
	table.row()
	table.row("PARKED", "LANE", "ATTEMPTS", "STATUS", "FIRST", "NEXT", "ERROR")
	for _, p := range list {
		table.row(p.ID, p.Lane, strconv.Itoa(p.Attempts), status(p.Status), t.ago(p.First), t.ago(p.Next), p.Error)
	}
	return table.flush()
}

func (t *tool) showRecent(out io.Writer, list []admin.Attempt) error {
	if len(list) == 0 {
		return nil
	}
	table := newTable(out)
	table.row()
	table.row(append([]string{"ATTEMPT"}, attemptHeader...)...)
	for _, one := range list {
		table.row(append([]string{t.ago(one.At)}, attemptRow(one)...)...)
	}
	return table.flush()
}

func owner(d admin.Delivery) string {
	if d.Here {
		return d.Owner + ", which answers"
	}
	return d.Owner
}

// status is an HTTP status, or nothing where there was none.
func status(code int) string {
	if code == 0 {
		return ""
	}
	return strconv.Itoa(code)
}

var attemptHeader = []string{"MESSAGE", "NUMBER", "OUTCOME", "STATUS", "TOOK", "ERROR"}

func attemptRow(a admin.Attempt) []string {
	return []string{a.ID, strconv.Itoa(a.Number), a.Outcome, status(a.Status), time.Duration(a.Duration).Round(time.Millisecond).String(), a.Error}
}

func (t *tool) subscriptionsTest(a *adminFlags) *cobra.Command {
	var message, contentType string
	cmd := t.admin(a, "test <subscription> [<file>]", "Sends a message to a consumer at once", `
It goes beside all others, signed like them, once, and not by the broker. The message is
--message, the content of the file, or - for the standard input; without any, a small JSON
object. The exit code is 1 if the consumer has not taken it.`, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		r, err := testRequest(cmd, message, args[1:])
		if err != nil {
			return err
		}
		if contentType != "" {
			r.ContentType = contentType
		}
		attempt, err := c.TestDelivery(ctx, args[0], r)
		if err != nil {
			return err
		}
		if err := t.showAttempt(cmd, attempt); err != nil {
			return err
		}
		if attempt.Outcome != admin.OutcomeDelivered {
			return fmt.Errorf("the consumer has not taken it: %s", attempt.Outcome)
		}
		return nil
	})
	cmd.Flags().StringVarP(&message, "message", "m", "", "The message")
	cmd.Flags().StringVar(&contentType, "content-type", "", "What it is. Default: application/json for a JSON object or list, else text/plain")
	return cmd
}

// testRequest sends the message as a text, byte by byte: as JSON it would be written anew.
func testRequest(cmd *cobra.Command, message string, files []string) (r admin.TestRequest, err error) {
	given := cmd.Flags().Changed("message")
	text := []byte(message)
	switch {
	case given && len(files) > 0:
		return r, errors.New("--message and a file: give one of them")
	case len(files) > 0:
		if _, text, err = readDefinition(files[0], cmd.InOrStdin()); err != nil {
			return r, err
		}
	case !given:
		return r, nil
	}
	if !utf8.Valid(text) {
		return r, errors.New("the message is no text (UTF-8), and a test takes nothing else")
	}
	if r.Payload, err = json.Marshal(string(text)); err != nil {
		return r, err
	}
	if begin := strings.TrimSpace(string(text)); json.Valid(text) && (begin[0] == '{' || begin[0] == '[') {
		r.ContentType = "application/json"
	}
	return r, nil
}

func (t *tool) showAttempt(cmd *cobra.Command, a admin.Attempt) error {
	if t.json {
		return show(cmd.OutOrStdout(), a)
	}
	table := newTable(cmd.OutOrStdout(), attemptHeader...)
	table.row(attemptRow(a)...)
	return table.flush()
}
