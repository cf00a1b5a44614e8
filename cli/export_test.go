package cli

import (
	"bufio"
	"bytes"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// NewCommand is the tree of commands with a clock, an environment and a terminal of the test.
func NewCommand(now func() time.Time, env map[string]string, terminal bool) *cobra.Command {
	root := &cobra.Command{Use: "caddy", SilenceUsage: true}
	cmd := &cobra.Command{Use: "message-api <command>"}
	t := &tool{now: now, getenv: func(name string) string { return env[name] }, terminal: func(io.Writer) bool { return terminal }}
	t.attach(cmd)
	root.AddCommand(cmd)
	return root
}

// Rotated puts a new secret before the one that there is.
var Rotated = rotated

// DefinitionOf, PlanOf and IDOf read files.
var (
	DefinitionOf = definitionOf
	PlanOf       = planOf
	IDOf         = idOf
)

// Ago is how long ago a time is, in words.
func Ago(now, at time.Time) string { return (&tool{now: func() time.Time { return now }}).ago(at) }

// CountEvents parses an event stream to its end.
func CountEvents(stream []byte) (n int) {
	in := &eventReader{r: bufio.NewReaderSize(bytes.NewReader(stream), 16)}
	for {
		if _, err := in.next(); err != nil {
			return n
		}
		n++
	}
}
