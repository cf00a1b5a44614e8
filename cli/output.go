package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// list prints what seq yields: as a table, or as one page of JSON with an item per line.
func list[T any](t *tool, cmd *cobra.Command, seq iter.Seq2[T, error], header string, row func(T) []string) error {
	out := cmd.OutOrStdout()
	if t.json {
		return listJSON(out, seq)
	}
	table := newTable(out, strings.Fields(header)...)
	for v, err := range seq {
		if err != nil {
			return err
		}
		table.row(row(v)...)
	}
	return table.flush()
}

// listJSON streams, because there may be very many. After an error the JSON stays
// unfinished, so that nobody takes it for the whole list.
func listJSON[T any](out io.Writer, seq iter.Seq2[T, error]) error {
	separator := `{"items":[` + "\n"
	for v, err := range seq {
		if err != nil {
			return err
		}
		raw, err := appendJSON(nil, v)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s%s", separator, raw); err != nil {
			return err
		}
		separator = ",\n"
	}
	end := "\n]}\n"
	if strings.HasPrefix(separator, "{") {
		end = `{"items":[]}` + "\n"
	}
	_, err := io.WriteString(out, end)
	return err
}

// show prints one thing as JSON.
func show(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// appendJSON appends v on one line, readable: nothing of ours goes into HTML.
func appendJSON(dst []byte, v any) ([]byte, error) {
	b := bytes.NewBuffer(dst)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// table aligns columns. The last column of a row is never padded.
type table struct {
	w *tabwriter.Writer
}

func newTable(out io.Writer, header ...string) *table {
	t := &table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	if len(header) > 0 {
		t.row(header...)
	}
	return t
}

// row adds a row. What is empty shows as a dash, so that columns can be counted.
func (t *table) row(cells ...string) {
	for i, text := range cells {
		cells[i] = cell(text)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t")) // its errors come with flush
}

func (t *table) flush() error { return t.w.Flush() }

func cell(text string) string {
	text = strings.NewReplacer("\n", " ", "\t", " ").Replace(printable(text))
	if text == "" {
		return "-"
	}
	return text
}

// details prints names and values, without those that are empty.
type details struct{ rows [][2]string }

func (d *details) add(name, value string) {
	if value != "" {
		d.rows = append(d.rows, [2]string{name + ":", value})
	}
}

func (d *details) print(out io.Writer) error {
	t := newTable(out)
	for _, row := range d.rows {
		t.row(row[0], row[1])
	}
	return t.flush()
}

// ago is a time for tables: how long ago, or in how long.
func (t *tool) ago(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	d := t.now().Sub(at)
	switch {
	case d < time.Second && d > -time.Second:
		return "now"
	case d < 0:
		return "in " + rough(-d)
	}
	return rough(d) + " ago"
}

// rough is a duration in the one unit that says most.
func rough(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d/day))
}

// when is a time for details: the time itself, and how long ago.
func (t *tool) when(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339) + " (" + t.ago(at) + ")"
}

// whenBy adds who did it.
func (t *tool) whenBy(at time.Time, by string) string {
	text := t.when(at)
	if by != "" && text != "" {
		text += " by " + by
	}
	return text
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
