package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// publish publishes messages by POST, as any client of the entrypoint http_post.
type publish struct {
	client
	*tool

	message        string
	hasMessage     bool
	lines, quiet   bool
	key            string
	messageHeaders []string

	envelope    envelope // what every message of a batch has beside its content
	out, errOut io.Writer
	in          io.Reader
}

func (t *tool) publishCommand() *cobra.Command {
	p := &publish{tool: t}
	cmd := command("publish <url> [<file>]", "Publishes messages to a message API", `
Publishes the message that is given by --message, or the content of a file, or of the
standard input (-, the default). With --lines every line is a message; empty lines are
left out. Lines are published in order, in batches, as soon as they can be read.

Prints "published" and the message's id, if the broker gives it one; with --lines, how
many. With --json one object per message. Messages that the gateway can't take for the
moment (429, 503) are sent again a few times, when it says; they have had no effect.`,
		p.run)
	flags := cmd.Flags()
	flags.StringVarP(&p.message, "message", "m", "", "The message")
	flags.BoolVar(&p.lines, "lines", false, "Publish every line as a message")
	flags.StringVar(&p.key, "key", "", "Key of every message, which decides about its partition, for example")
	flags.StringArrayVar(&p.messageHeaders, "message-header", nil, "A header of every message, as 'name: value'; may stand several times")
	flags.BoolVarP(&p.quiet, "quiet", "q", false, "Print nothing but errors")
	p.flags(flags)
	return cmd
}

// envelope is a line of a batch.
type envelope struct {
	Key      string              `json:"key,omitempty"`
	Content  string              `json:"content"`
	Encoding string              `json:"encoding,omitempty"`
	Headers  map[string][]string `json:"headers,omitempty"`
}

func (p *publish) run(ctx context.Context, cmd *cobra.Command, args []string) error {
	p.out, p.errOut, p.in = cmd.OutOrStdout(), cmd.ErrOrStderr(), cmd.InOrStdin()
	p.hasMessage = cmd.Flags().Changed("message")
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := p.prepare(args[0], p.getenv); err != nil {
		return err
	}
	defer p.close()
	p.envelope.Key = p.key
	for _, line := range p.messageHeaders {
		name, value, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return fmt.Errorf("--message-header %q: write 'name: value'", line)
		}
		if p.envelope.Headers == nil {
			p.envelope.Headers = make(map[string][]string)
		}
		p.envelope.Headers[name] = append(p.envelope.Headers[name], strings.TrimSpace(value))
	}
	src, err := p.open(args[1:])
	if err != nil {
		return err
	}
	defer src.close()
	switch {
	case p.lines:
		return p.publishLines(ctx, src)
	case p.key != "" || p.envelope.Headers != nil:
		return p.publishWhole(ctx, src)
	}
	return p.publishBody(ctx, src)
}

// publishBody publishes the source as the body of a POST, without keeping it in memory.
func (p *publish) publishBody(ctx context.Context, src *source) error {
	var items []item
	first := true
	err := p.insist(ctx, src.rewind != nil, func() (bool, error) {
		if !first {
			if err := src.rewind(); err != nil {
				return false, fmt.Errorf("reading the message once more: %w", err)
			}
		}
		first = false
		var err error
		items, err = p.post(ctx, "", io.NopCloser(src), src.size)
		return false, err
	})
	if err != nil {
		return err
	}
	return p.tellOne(items)
}

// maxWhole bounds a message that has to be wrapped, and so be in memory.
const maxWhole = 256 << 20

// publishWhole publishes the source as a batch of one, because only there a message can have
// a key and headers of its own.
func (p *publish) publishWhole(ctx context.Context, source io.Reader) error {
	content, err := io.ReadAll(io.LimitReader(source, maxWhole+1))
	if err != nil {
		return fmt.Errorf("reading the message: %w", err)
	}
	if len(content) > maxWhole {
		return fmt.Errorf("a message with --key or --message-header can have %d MiB at most", maxWhole>>20)
	}
	line, err := p.envelope.append(nil, content)
	if err != nil {
		return err
	}
	var items []item
	err = p.insist(ctx, true, func() (bool, error) {
		var err error
		if items, err = p.post(ctx, ndjson, io.NopCloser(bytes.NewReader(line)), int64(len(line))); err != nil {
			return false, err
		}
		if len(items) != 1 {
			return false, fmt.Errorf("the answer tells of %d messages, and one was published", len(items))
		}
		return false, items[0].problem()
	})
	if err != nil {
		return err
	}
	return p.tellOne(items)
}

// tellOne prints what became of the messages of one request, which are more than one when
// the user has sent a batch of his own.
func (p *publish) tellOne(items []item) error {
	var failed int
	for i := range items {
		if err := items[i].problem(); err != nil {
			failed++
			fmt.Fprintf(p.errOut, "message %d: %s\n", i+1, printable(err.Error()))
		}
		if err := p.tell(items[i], 0); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d messages were not published", failed, len(items))
	}
	return nil
}

// tell prints what became of a message. line is its number in the input, 0 without.
func (p *publish) tell(it item, line int) error {
	if p.quiet {
		return nil
	}
	var err error
	switch {
	case p.json:
		it.Line = line
		var raw []byte
		if raw, err = appendJSON(nil, it); err == nil {
			_, err = fmt.Fprintf(p.out, "%s\n", raw)
		}
	case it.Status == http.StatusAccepted && line == 0:
		_, err = fmt.Fprintln(p.out, strings.TrimSpace("published "+printable(it.ID)))
	}
	return err
}
