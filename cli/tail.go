package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// tail reads a message API to standard output, and comes back when it is cut off.
type tail struct {
	client
	*tool
	*printer

	sse, websocket, get bool
	from, begin         string
	count               int

	// cursor is behind what was printed last.
	cursor string

	// retry is how long the gateway wants to be left alone after a connection broke.
	retry time.Duration
	// tracked: the broker keeps track of what was read, so nothing is missed between two
	// connections though there is no cursor.
	tracked bool
	// patience is how long a GET may take; 0, unless --timeout is given, because how long
	// the gateway waits for messages is a matter of its configuration.
	patience time.Duration
}

func (t *tool) tailCommand() *cobra.Command {
	tl := &tail{tool: t}
	cmd := command("tail <url>", "Prints the messages of a message API", `
Reads by an event stream, or where the API has none by a WebSocket, or by GETs; the flags
choose one. Prints each message's content and a line end, with --json an object per
message, and goes on until it is interrupted or has --count messages.

When the connection is lost it comes back, at the place where it was if the API can tell
places apart; if something was or may have been missed, it says so on standard error. It ends
when the gateway says that coming back makes no sense.`, tl.run)
	flags := cmd.Flags()
	flags.BoolVar(&tl.sse, "sse", false, "Read by an event stream")
	flags.BoolVar(&tl.websocket, "websocket", false, "Read by a WebSocket")
	flags.BoolVar(&tl.get, "get", false, "Read by one GET after the other")
	flags.StringVar(&tl.from, "from", "", "Where to begin: latest, earliest or a time (RFC 3339); the API must allow it, by its option from")
	flags.StringVar(&tl.begin, "cursor", "", "Continue after the message with this cursor")
	flags.IntVarP(&tl.count, "count", "n", 0, "End after so many messages; 0 is never")
	tl.flags(flags)
	return cmd
}

func (tl *tail) run(ctx context.Context, cmd *cobra.Command, args []string) error {
	chosen := 0
	for _, flag := range []bool{tl.sse, tl.websocket, tl.get} {
		if flag {
			chosen++
		}
	}
	switch {
	case chosen > 1:
		return errors.New("--sse, --websocket and --get: choose one")
	case tl.count < 0:
		return fmt.Errorf("--count %d: write a number of messages, or 0 for no end", tl.count)
	}
	out := cmd.OutOrStdout()
	tl.printer = &printer{
		out: bufio.NewWriterSize(out, 64<<10), errOut: cmd.ErrOrStderr(),
		asJSON: tl.json, careful: !tl.json && tl.terminal(out), left: tl.count,
	}
	if tl.count == 0 {
		tl.left = -1
	}
	tl.cursor = tl.begin
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if cmd.Flags().Changed("timeout") {
		tl.patience = tl.timeout
	}
	if err := tl.prepare(args[0], tl.getenv); err != nil {
		return err
	}
	defer tl.close()
	err := tl.follow(ctx)
	if flushErr := tl.out.Flush(); flushErr != nil && !errors.Is(err, flushErr) {
		err = errors.Join(err, flushErr)
	}
	return err
}

// reader reads on one connection to its end. It returns nil when enough was read.
type reader func(ctx context.Context) error

// ended is how a connection ended that had come about.
type ended struct {
	reason string
	// again: it makes sense to come back, after wait if that is not 0.
	again bool
	wait  time.Duration
}

func (e *ended) Error() string { return e.reason }

// writeError is a failure to print, after which nothing makes sense any more.
type writeError struct{ err error }

func (e *writeError) Error() string { return "writing what was read: " + e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// readers are the ways to read, in the order in which they are tried.
func (tl *tail) readers() []reader {
	switch {
	case tl.sse:
		return []reader{tl.readSSE}
	case tl.websocket:
		return []reader{tl.readWebSocket}
	case tl.get:
		return []reader{tl.readPages}
	}
	return []reader{tl.readSSE, tl.readWebSocket, tl.readPages}
}

// follow reads until it is told to stop, connection after connection.
func (tl *tail) follow(ctx context.Context) error {
	readers := tl.readers()
	connected := false // whether there ever was a connection
	for failures := 0; ; {
		err := readers[0](ctx)
		end, wasUp := errors.AsType[*ended](err)
		p, isProblem := errors.AsType[*problem](err)
		switch _, broken := errors.AsType[*writeError](err); {
		case err == nil || ctx.Err() != nil:
			return nil
		case broken:
			return err
		case !connected && len(readers) > 1 && isProblem && p.Status == http.StatusNotAcceptable:
			readers = readers[1:] // the API has no such entrypoint
			continue
		case !connected && !wasUp:
			return err // at the beginning a fault is more likely the user's than passing
		case wasUp && !end.again, isProblem && p.Status < 500 && !p.temporary():
			return err
		}
		failures++
		if wasUp {
			connected, failures, readers = true, 0, readers[:1]
		}
		if err := tl.wait(ctx, err, failures); err != nil {
			return nil // interrupted
		}
	}
}

const (
	firstRetry = time.Second
	maxRetry   = 30 * time.Second
)

// wait says why the connection is gone and waits for a moment to come back.
func (tl *tail) wait(ctx context.Context, err error, failures int) error {
	delay := max(tl.retry, min(firstRetry<<min(failures, 5), maxRetry))
	delay += rand.N(delay / 4) // so that those who were cut off together do not come back together
	if end, ok := errors.AsType[*ended](err); ok && end.wait > 0 {
		delay = end.wait
	}
	if p, ok := errors.AsType[*problem](err); ok && p.retryAfter > 0 {
		delay = p.retryAfter
	}
	if err := tl.out.Flush(); err != nil {
		return err
	}
	tl.note("%s; coming back in %s", err, delay.Round(time.Millisecond))
	if failures == 0 && tl.cursor == "" && !tl.tracked {
		tl.note("gap (unresumable): what comes until then is missed, because there is no cursor")
	}
	return pause(ctx, delay)
}

// address is the URL with what says where to read from. A cursor goes by header where there
// is one for it.
func (tl *tail) address(cursor string) *url.URL {
	u := *tl.url
	name, value := "cursor", cursor
	if tl.cursor == "" {
		name, value = "from", tl.from
	}
	if value == "" {
		return &u // as it was written
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return &u
}

// open sends a request and waits for the beginning of its answer, for as long as patience
// says; 0 is without end. hangUp ends the answer.
func (tl *tail) open(req *http.Request, patience time.Duration) (resp *http.Response, hangUp func(), err error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	if patience > 0 {
		timer := time.AfterFunc(patience, func() { cancel(errTimeout) })
		defer timer.Stop()
	}
	resp, err = tl.http.Do(req.WithContext(ctx))
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errTimeout) {
			err = cause
		}
		cancel(nil)
		return nil, nil, transportError(err)
	}
	return resp, func() { cancel(nil); _ = resp.Body.Close() }, nil
}

// deliver prints an event and remembers its place.
func (tl *tail) deliver(e *event) error {
	if err := tl.print(e); err != nil {
		return &writeError{err}
	}
	if e.Cursor != "" {
		tl.cursor = e.Cursor
	}
	return nil
}

func (tl *tail) flush() error {
	if err := tl.out.Flush(); err != nil {
		return &writeError{err}
	}
	return nil
}
