package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

type subscriptionAction func(*admin.Client, context.Context, string, admin.Write) (admin.Subscription, error)

func (t *tool) subscriptionsGroup() *cobra.Command {
	return t.group("subscriptions", "Subscriptions: the right of an application to use a plan",
		t.subscriptionsList, t.subscriptionsGet, t.subscriptionsCreate, t.subscriptionsAccept,
		t.subscriptionAction("reject", "Refuses a pending subscription", "", (*admin.Client).Reject),
		t.subscriptionAction("pause", "Lets nobody in by a subscription until it is resumed", "Its sessions end.", (*admin.Client).Pause),
		t.subscriptionAction("resume", "Ends a pause", "", (*admin.Client).Resume),
		t.subscriptionAction("close", "Ends a subscription for ever", "Its sessions end, and its keys are no good any more.", (*admin.Client).CloseSubscription),
		t.subscriptionsUpdate, t.subscriptionsDelivery, t.subscriptionsRetry, t.subscriptionsTest,
	)
}

const subscriptionHeader = "ID API PLAN APPLICATION STATUS CREATED ENDS REASON"

func (t *tool) subscriptionRow(s admin.Subscription) []string {
	return []string{s.ID, s.API, s.Plan, s.Application, s.Status, t.ago(s.CreatedAt), t.ago(s.Ends), s.Reason}
}

func (t *tool) subscriptionsList(a *adminFlags) *cobra.Command {
	var q admin.SubscriptionQuery
	cmd := t.admin(a, "list", "Lists subscriptions, oldest first", "", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, _ []string) error {
		return list(t, cmd, c.Subscriptions(ctx, q), subscriptionHeader, t.subscriptionRow)
	})
	flags := cmd.Flags()
	flags.StringVar(&q.API, "api", "", "Only those to this API")
	flags.StringVar(&q.Plan, "plan", "", "Only those to this plan")
	flags.StringVar(&q.Application, "application", "", "Only those of this application")
	flags.StringVar(&q.Status, "status", "", "Only pending, accepted, paused, closed or rejected ones")
	return cmd
}

func (t *tool) subscriptionsGet(a *adminFlags) *cobra.Command {
	return t.admin(a, "get <subscription>", "Shows a subscription", "", func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		s, err := c.Subscription(ctx, args[0])
		if err != nil {
			return err
		}
		return t.showSubscription(cmd, s)
	})
}

// showSubscription prints a subscription, and the key that was made with it.
func (t *tool) showSubscription(cmd *cobra.Command, s admin.Subscription) error {
	if t.json {
		return show(cmd.OutOrStdout(), s)
	}
	d := new(details)
	d.add("ID", s.ID)
	d.add("API", s.API)
	d.add("Plan", s.Plan)
	d.add("Application", s.Application)
	d.add("Status", s.Status)
	d.add("Reason", s.Reason)
	d.add("Message", s.Message)
	d.add("Starts", t.when(s.Starts))
	d.add("Ends", t.when(s.Ends))
	d.add("Created", t.when(s.CreatedAt))
	d.add("Processed", t.whenBy(s.ProcessedAt, s.ProcessedBy))
	d.add("Paused", t.when(s.PausedAt))
	d.add("Closed", t.when(s.ClosedAt))
	d.add("Limits", limitsText(s.Limits))
	d.add("Conditions", s.ConditionsAccepted)
	for _, name := range slices.Sorted(maps.Keys(s.Metadata)) {
		d.add("Metadata", name+"="+s.Metadata[name])
	}
	t.addConsumer(d, s)
	d.add("ETag", version(s.ETag))
	if s.NewKey != nil {
		d.add("Key id", s.NewKey.ID)
		d.add("Key", s.NewKey.Secret)
	}
	if err := d.print(cmd.OutOrStdout()); err != nil {
		return err
	}
	switch {
	case s.NewKey != nil:
		return onceOnly(cmd, "key")
	case len(secretsOf(s.Consumer)) > 0:
		return onceOnly(cmd, "secret")
	}
	return nil
}

// onceOnly warns that a key or secret can't be had again.
func onceOnly(cmd *cobra.Command, what string) error {
	_, err := fmt.Fprintf(cmd.ErrOrStderr(), "The %s is shown this once, and can't be had again: keep it now.\n", what)
	return err
}

// showNew prints a subscription that was made or accepted, or its key or secrets alone.
func (t *tool) showNew(cmd *cobra.Command, s admin.Subscription, quiet bool) error {
	secrets := secretsOf(s.Consumer)
	switch {
	case !quiet:
		return t.showSubscription(cmd, s)
	case len(secrets) > 0:
		_, err := fmt.Fprintln(cmd.OutOrStdout(), strings.Join(secrets, "\n"))
		return err
	case s.NewKey == nil:
		_, err := fmt.Fprintf(cmd.ErrOrStderr(), "subscription %s is %s, and no key was made\n", s.ID, s.Status)
		return err
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), s.NewKey.Secret)
	return err
}

func (t *tool) subscriptionsCreate(a *adminFlags) *cobra.Command {
	var (
		r        admin.SubscribeRequest
		k        keyFlags
		span     span
		limits   limitFlags
		consumer consumerFlags
		metadata []string
	)
	cmd := t.admin(a, "create", "Subscribes an application to a plan", `
Where the plan accepts by itself, the subscription is accepted at once, and a plan that goes by
API keys gives one: it is printed this once, with --quiet alone on its line.

A plan that pushes wants to know where to: --callback, or --consumer with all that can be said.
Deliveries are signed with --secret; without, the gateway makes one, which is printed this once.`, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, _ []string) error {
		for flag, value := range map[string]string{"api": r.API, "plan": r.Plan, "application": r.Application} {
			if value == "" {
				return fmt.Errorf("--api, --plan and --application say who wants what: --%s is missing", flag)
			}
		}
		var err error
		if r.Starts, r.Ends, err = span.times(t); err != nil {
			return err
		}
		if r.Key, err = k.key(); err != nil {
			return err
		}
		if limits.given(cmd.Flags()) {
			r.Limits = new(admin.Limits)
			if err := limits.apply(cmd.Flags(), r.Limits); err != nil {
				return err
			}
		}
		r.Metadata = map[string]string{}
		if err := applyMetadata(r.Metadata, metadata); err != nil {
			return err
		}
		if r.Consumer, err = consumer.forCreate(cmd); err != nil {
			return err
		}
		s, err := c.Subscribe(ctx, r)
		if err != nil {
			return err
		}
		return t.showNew(cmd, s, k.quiet)
	})
	flags := cmd.Flags()
	flags.StringVar(&r.API, "api", "", "The API")
	flags.StringVar(&r.Plan, "plan", "", "The plan")
	flags.StringVar(&r.Application, "application", "", "The application")
	flags.StringVar(&r.Message, "message", "", "What to tell who decides about it")
	flags.StringVar(&r.ConditionsAccepted, "accept-conditions", "", "Revision of the general conditions that the consumer accepts")
	flags.StringArrayVar(&metadata, "metadata", nil, "name=value, may stand several times")
	span.flags(flags)
	limits.flags(flags)
	consumer.flags(flags)
	k.flags(flags)
	return cmd
}

func (t *tool) subscriptionsAccept(a *adminFlags) *cobra.Command {
	var (
		k    keyFlags
		w    writeFlags
		span span
	)
	cmd := t.admin(a, "accept <subscription>", "Accepts a pending subscription", `
A plan that goes by API keys gives one: it is printed this once, with --quiet alone on its
line.`, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		r := admin.AcceptRequest{Reason: w.reason}
		var err error
		if r.Starts, r.Ends, err = span.times(t); err != nil {
			return err
		}
		if r.Key, err = k.key(); err != nil {
			return err
		}
		s, err := c.Accept(ctx, args[0], r, etag(w.ifMatch))
		if err != nil {
			return err
		}
		return t.showNew(cmd, s, k.quiet)
	})
	span.flags(cmd.Flags())
	k.flags(cmd.Flags())
	w.flags(cmd, true)
	return cmd
}

func (t *tool) subscriptionAction(name, short, long string, act subscriptionAction) func(*adminFlags) *cobra.Command {
	return func(a *adminFlags) *cobra.Command {
		var w writeFlags
		cmd := t.admin(a, name+" <subscription>", short, long, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
			s, err := act(c, ctx, args[0], w.write())
			if err != nil {
				return err
			}
			if t.json {
				return show(cmd.OutOrStdout(), s)
			}
			table := newTable(cmd.OutOrStdout(), strings.Fields(subscriptionHeader)...)
			table.row(t.subscriptionRow(s)...)
			return table.flush()
		})
		w.flags(cmd, true)
		return cmd
	}
}

func (t *tool) subscriptionsUpdate(a *adminFlags) *cobra.Command {
	var (
		w        writeFlags
		during   span
		limits   limitFlags
		consumer consumerFlags
		metadata []string
	)
	cmd := t.admin(a, "update <subscription>", "Changes a subscription", `
What is not named stays as it is. "none" takes a time or a limit away, --metadata name= a
value, --header Name: a header. Where somebody has to accept changes of the consumer, the one
that there is stays in force until then.

--rotate-secret has deliveries signed with a new secret beside the old one, so that the consumer
can change over; --secret with the new one alone ends that.`, func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error {
		if !limits.given(cmd.Flags()) && !consumer.given(cmd.Flags()) && len(metadata) == 0 && during == (span{}) {
			return errors.New("nothing to change: give --starts, --ends, --metadata, a limit, --consumer, --callback, --secret, --header or --rotate-secret")
		}
		// What a patch can only replace as a whole is read first; the ETag sees to it that
		// nobody changes it in between.
		now, err := c.Subscription(ctx, args[0])
		if err != nil {
			return err
		}
		var patch admin.SubscriptionPatch
		if patch.Starts, err = t.optionalTime("starts", during.starts); err != nil {
			return err
		}
		if patch.Ends, err = t.optionalTime("ends", during.ends); err != nil {
			return err
		}
		if patch.Limits, err = limits.patch(cmd.Flags(), now.Limits); err != nil {
			return err
		}
		if patch.Metadata, err = patchMetadata(now.Metadata, metadata); err != nil {
			return err
		}
		var secret string
		if patch.Consumer, secret, err = consumer.patch(cmd, now.Consumer); err != nil {
			return err
		}
		match := etag(w.ifMatch)
		if match == "" {
			match = now.ETag
		}
		s, err := c.UpdateSubscription(ctx, args[0], patch, match)
		if err != nil {
			return err
		}
		return t.showUpdated(cmd, s, secret, consumer.quiet)
	})
	flags := cmd.Flags()
	flags.StringArrayVar(&metadata, "metadata", nil, "name=value, may stand several times")
	during.flags(flags)
	limits.flags(flags)
	consumer.updateFlags(flags)
	w.flags(cmd, false)
	return cmd
}
