package redisstorage_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/redisstorage"
)

// The client library runs a clock until the last client is closed, and one from the start.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// open makes a storage with short times, closed when the test ends.
func open(t *testing.T, addr string) *redisstorage.Storage {
	t.Helper()
	s := redisstorage.Open(redisstorage.Options{Address: addr, LockTTL: 600 * time.Millisecond, Timeout: 300 * time.Millisecond})
	t.Cleanup(func() {
		if err := s.Destruct(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// What Caddy's own storage does is what this one does.
func TestItIsLikeFiles(t *testing.T) {
	storages := map[string]certmagic.Storage{
		"files": &certmagic.FileStorage{Path: t.TempDir()},
		"Redis": open(t, brokers.Redis(t).Addr()),
	}
	for name, s := range storages {
		t.Run(name, func(t *testing.T) {
			for _, key := range []string{"a/b/c", "a/b/d", "a/e", "ab/f", "a.b", "g", "/a/b/./h", "a/b0"} {
				if err := s.Store(t.Context(), key, []byte("of "+key)); err != nil {
					t.Fatal(err)
				}
			}
			checkLists(t, s)
			checkFiles(t, s)
			checkDeletes(t, s)
		})
	}
}

func checkLists(t *testing.T, s certmagic.Storage) {
	t.Helper()
	for _, c := range []struct {
		folder    string
		recursive bool
		want      string
	}{
		{"a", false, "a/b a/b0 a/e"},
		{"a", true, "a/b a/b/c a/b/d a/b/h a/b0 a/e"},
		{"a/b", false, "a/b/c a/b/d a/b/h"},
		{"", false, "a a.b ab g"},
		{"", true, "a a.b a/b a/b/c a/b/d a/b/h a/b0 a/e ab ab/f g"},
		{"g", true, ""},
	} {
		got, err := s.List(t.Context(), c.folder, c.recursive)
		slices.Sort(got)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q, recursive %v: %q, %v; want %s", c.folder, c.recursive, got, err, c.want)
		}
	}
	if got, err := s.List(t.Context(), "nothing", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there holds %q, %v", got, err)
	}
}

func checkFiles(t *testing.T, s certmagic.Storage) {
	t.Helper()
	ctx := t.Context()
	binary := string([]byte{0, 0xff, '\r', '\n', 0x80})
	for _, value := range []string{binary, "", strings.Repeat("x", 1<<20), "last"} {
		if err := s.Store(ctx, "g", []byte(value)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Load(ctx, "g"); err != nil || string(got) != value {
			t.Errorf("%d bytes were stored, %d are loaded, %v", len(value), len(got), err)
		}
	}
	info, err := s.Stat(ctx, "g")
	if err != nil || info.Key != "g" || !info.IsTerminal || info.Size != 4 || time.Since(info.Modified).Abs() > time.Minute {
		t.Errorf("a file is %+v, %v", info, err)
	}
	if info, err := s.Stat(ctx, "a/b"); err != nil || info.IsTerminal {
		t.Errorf("a folder is %+v, %v", info, err)
	}
	for key, want := range map[string]bool{"g": true, "a": true, "a/b/c": true, "a/b/x": false, "h": false} {
		if got := s.Exists(ctx, key); got != want {
			t.Errorf("%s exists: %v", key, got)
		}
	}
	if _, err := s.Load(ctx, "h"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("loading what is not there: %v", err)
	}
	if _, err := s.Stat(ctx, "h"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("looking for what is not there: %v", err)
	}
}

func checkDeletes(t *testing.T, s certmagic.Storage) {
	t.Helper()
	for _, key := range []string{"a/b/c", "a/b", "nothing"} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("deleting %s: %v", key, err)
		}
	}
	got, err := s.List(t.Context(), "a", true)
	slices.Sort(got)
	if err != nil || strings.Join(got, " ") != "a/b0 a/e" {
		t.Errorf("then there is %q, %v", got, err)
	}
	if _, err := s.Load(t.Context(), "a/b/d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file in a deleted folder: %v", err)
	}
}

// Two prefixes on one server know nothing of each other.
func TestPrefixesAreApart(t *testing.T) {
	addr := brokers.Redis(t).Addr()
	one := open(t, addr)
	other := redisstorage.Open(redisstorage.Options{Address: addr, Prefix: "other"})
	defer func() { _ = other.Destruct() }()
	if err := one.Store(t.Context(), "a/b", nil); err != nil {
		t.Fatal(err)
	}
	if other.Exists(t.Context(), "a") || one.String() == other.String() {
		t.Errorf("%s is not apart from %s", one, other)
	}
}

// A server that hangs, or is away, is no empty storage, and keeps nobody waiting.
func TestServerHangsAndGoes(t *testing.T) {
	server := brokers.Redis(t)
	s := open(t, server.Addr())
	if err := s.Store(t.Context(), "a", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	operations := map[string]func(context.Context) error{
		"Store":  func(ctx context.Context) error { return s.Store(ctx, "b", nil) },
		"Load":   func(ctx context.Context) error { _, err := s.Load(ctx, "a"); return err },
		"Delete": func(ctx context.Context) error { return s.Delete(ctx, "c") },
		"List":   func(ctx context.Context) error { _, err := s.List(ctx, "a", true); return err },
		"Stat":   func(ctx context.Context) error { _, err := s.Stat(ctx, "a"); return err },
		"Lock":   func(ctx context.Context) error { return s.Lock(ctx, "l") },
	}
	failAll := func(when string, limit time.Duration) {
		t.Helper()
		for name, do := range operations {
			began := time.Now()
			err := do(t.Context())
			if took := time.Since(began); err == nil || errors.Is(err, fs.ErrNotExist) || took > limit {
				t.Errorf("%s: %s: %v after %s", when, name, err, took)
			}
			if err != nil && !strings.Contains(err.Error(), server.Addr()) {
				t.Errorf("%s: %s does not say where: %v", when, name, err)
			}
		}
	}
	server.Pause()
	failAll("paused", 2*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Load(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("paused, with a deadline: %v", err)
	}
	server.Resume()
	server.Kill()
	failAll("killed", 2*time.Second)
	server.Restart()
	if got, err := s.Load(t.Context(), "a"); err != nil || string(got) != "kept" {
		t.Errorf("after a restart: %q, %v", got, err)
	}
}

func BenchmarkLoad(b *testing.B) {
	s := redisstorage.Open(redisstorage.Options{Address: brokers.Redis(b).Addr()})
	defer func() { _ = s.Destruct() }()
	for i := range 1000 {
		if err := s.Store(b.Context(), fmt.Sprintf("a/%d", i), make([]byte, 200)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := s.Load(b.Context(), "a/500"); err != nil {
			b.Fatal(err)
		}
	}
}
