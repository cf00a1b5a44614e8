package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func export(t testing.TB, s *Store) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := s.Export(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	if !json.Valid(out.Bytes()) {
		t.Fatalf("no JSON: %s", out.Bytes())
	}
	return out.Bytes()
}

func TestExportAndImport(t *testing.T) {
	s := open(t, quiet(t, newFaulty(newMemory())))
	want := make(map[string]int)
	const n = 1200
	fill(t, s, n)
	for i := range n {
		want[numbered(i).ID] = i
	}
	put(t, s, Ref{"odd", "ä<&>\"\n"}, thing{Text: "<&>\u2028"})
	put(t, s, numbered(5), thing{N: 55})
	want[numbered(5).ID] = 55
	if err := s.Update(t.Context(), []Ref{numbered(6)}, func(tx *Tx) error { tx.Delete(numbered(6)); return nil }); err != nil {
		t.Fatal(err)
	}
	delete(want, numbered(6).ID)
	data := export(t, s)

	empty := open(t, quiet(t, newFaulty(newMemory())))
	report, err := empty.Import(t.Context(), bytes.NewReader(data))
	if err != nil || report.Added != n || report.Updated+report.Unchanged+report.NotTaken != 0 {
		t.Fatalf("%+v %v", report, err)
	}
	expectThings(t, empty, want)
	if v, _ := get(t, empty, Ref{"odd", "ä<&>\"\n"}); v.Text != "<&>\u2028" {
		t.Errorf("got %q", v.Text)
	}

	// Once more: nothing changes, but what was changed meanwhile.
	put(t, empty, numbered(1), thing{N: 111})
	put(t, empty, Ref{"thing", "mine"}, thing{N: 7})
	want["mine"] = 7
	report, err = empty.Import(t.Context(), bytes.NewReader(data))
	if err != nil || report.Added != 0 || report.Updated != 1 || report.Unchanged != n-1 {
		t.Fatalf("%+v %v", report, err)
	}
	expectThings(t, empty, want)
	again := export(t, open(t, quiet(t, newFaulty(newMemory()))))
	if !bytes.Contains(again, []byte(`"count":0`)) {
		t.Errorf("got %s", again)
	}
}

func document(records ...string) string {
	return `{"format":"message_api/export","version":1,"more":{"a":[1]},"records":[` + strings.Join(records, ",") + `]}`
}

func TestImportWithARule(t *testing.T) {
	s := open(t, quiet(t, newFaulty(newMemory())))
	put(t, s, Ref{"thing", "sticky"}, thing{N: 1, Text: "sticky"})
	put(t, s, Ref{"thing", "gone"}, thing{N: 1})
	doc := document(
		`{"kind":"thing","id":"sticky","version":9,"time":"2026-01-01T00:00:00Z","data":{"n":2}}`,
		`{"kind":"thing","id":"refused","version":9,"data":{"n":3}}`,
		`{"kind":"thing","id":"new","data":{"n":4}}`,
		`{"kind":"thing","id":"gone","data":{"n":5}}`,
		`{"kind":"","id":"x","data":{}}`,
		`{"kind":"thing","id":"none"}`,
		`{"kind":"counter","id":"k","data":{}}`,
		`{"kind":"thing","id":"twice","data":{"n":1}}`,
		`{"kind":"thing","id":"twice","data":{"n":2}}`,
	)
	report, err := s.ImportWith(t.Context(), strings.NewReader(doc), func(old *Record, in Record) (Record, error) {
		switch in.ID {
		case "sticky":
			if old == nil || old.Version != 1 || in.Version != 9 || in.Time.Year() != 2026 {
				t.Errorf("old %+v in %+v", old, in)
			}
			in.Data = json.RawMessage(`{"n":2, "text":"sticky"}`)
		case "refused":
			return in, errors.New("not this one")
		case "gone":
			in.Deleted = true
		}
		return in, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.Added != 2 || report.Updated != 3 || report.NotTaken != 4 || len(report.Skipped) != 4 || report.Skipped[0].Reason != "not this one" {
		t.Errorf("%+v", report)
	}
	expectThings(t, s, map[string]int{"sticky": 2, "new": 4, "twice": 2})
	if v, version := get(t, s, Ref{"thing", "sticky"}); v.Text != "sticky" || version != 2 {
		t.Errorf("%+v version %d", v, version)
	}
}

// What is no export is refused, with the reason, before anything is changed.
func TestImportRefuses(t *testing.T) {
	one := `{"kind":"thing","id":"a","data":{}}`
	for doc, want := range map[string]string{
		``:                          "EOF",
		`[]`:                        "should be",
		`{}`:                        "not an export",
		`null`:                      "should be",
		`{"records":[` + one + `]}`: "not an export",
		`{"format":"else","version":1,"records":[` + one + `]}`:                "else",
		`{"format":"message_api/export","version":2,"records":[` + one + `]}`:  "another version",
		`{"format":"message_api/export","version":1,"records":{}}`:             "should be",
		`{"format":"message_api/export","version":1,"records":[{"kind":1}]}`:   "cannot unmarshal",
		`{"format":"message_api/export","version":1,"records":[` + one + `}`:   "invalid character",
		`{"format":"message_api/export","version":1,"records":[]} {"again":1}`: "follows the end",
	} {
		s := open(t, quiet(t, newFaulty(newMemory())))
		report, err := s.Import(t.Context(), strings.NewReader(doc))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", doc, err)
		}
		if report.Added != s.Len("thing") {
			t.Errorf("%s: %+v, and there are %d", doc, report, s.Len("thing"))
		}
	}
}

// An import that breaks off says how far it came, and the rest is done by another.
func TestImportBreaksOff(t *testing.T) {
	t.Parallel()
	s := open(t, quiet(t, newFaulty(newMemory())))
	fill(t, s, 3*importChunk)
	data := export(t, s)
	storage := newFaulty(newMemory())
	other := open(t, quiet(t, storage))
	n := 0
	storage.set(func(op, key string) error {
		if op == "store" && strings.Contains(key, "/log/") {
			if n++; n == 2 {
				return errDisk
			}
		}
		return nil
	}, nil)
	report, err := other.Import(t.Context(), bytes.NewReader(data))
	if !errors.Is(err, ErrUnavailable) || report.Added == 0 || report.Added != other.Len("thing") {
		t.Errorf("%+v %v, and there are %d", report, err, other.Len("thing"))
	}
	first := report.Added
	report, err = other.Import(t.Context(), bytes.NewReader(data))
	if err != nil || report.Unchanged != first || report.Added != 3*importChunk-first {
		t.Errorf("%+v %v", report, err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errDisk }

func TestExportFails(t *testing.T) {
	s := open(t, quiet(t, newFaulty(newMemory())))
	fill(t, s, 100)
	if err := s.Export(t.Context(), failingWriter{}); !errors.Is(err, errDisk) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Export(ctx, &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzImport(f *testing.F) {
	f.Add(document(`{"kind":"thing","id":"a","version":1,"data":{}}`))
	f.Add(`{"format":"message_api/export"`)
	f.Fuzz(func(t *testing.T, doc string) {
		s := open(t, quiet(t, newFaulty(newMemory())))
		report, err := s.Import(t.Context(), strings.NewReader(doc))
		if n := fmt.Sprint(report.Added, err); err == nil && report.Added > len(doc) {
			t.Error(n)
		}
	})
}
