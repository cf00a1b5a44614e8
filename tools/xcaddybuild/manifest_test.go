package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, text string) (Manifest, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "xcaddy.json")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return readManifest(name)
}

func TestArgs(t *testing.T) {
	m, err := read(t, `{"caddy_version":"v2.11.9","plugins":[
		{"module":"example.com/a","replacement":"."},
		{"module":"example.com/b","version":"v1.2.3"},
		{"module":"example.com/c","version":"v1.0.0","replacement":"../c"},
		{"module":"example.com/a/inside"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	args, err := m.args("/src/here", "bin/caddy")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"build", "v2.11.9", "--output", "bin/caddy",
		"--with", "example.com/a@v0.0.0=/src/here", "--replace", "example.com/a=/src/here",
		"--with", "example.com/b@v1.2.3",
		"--with", "example.com/c@v1.0.0=/src/c", "--replace", "example.com/c=/src/c",
		"--with", "example.com/a/inside",
	}
	if !slices.Equal(args, want) {
		t.Errorf("args %q, want %q", args, want)
	}
}

func TestOptionalPlugins(t *testing.T) {
	m, err := read(t, `{"caddy_version":"v2.11.9","plugins":[
		{"module":"example.com/a","version":"v1.0.0"},
		{"module":"example.com/b","version":"v1.0.0","optional":"bee","cgo":true}]}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		with    []string
		plugins int
		cgo     bool
	}{{nil, 1, false}, {[]string{"bee"}, 2, true}} {
		chosen, err := m.choose(tc.with)
		if err != nil || len(chosen.Plugins) != tc.plugins || chosen.cgo() != tc.cgo {
			t.Errorf("with %q: %+v, %v", tc.with, chosen, err)
		}
	}
	if _, err := m.choose([]string{"bee", "wasp"}); err == nil || !strings.Contains(err.Error(), "wasp") {
		t.Errorf("an unknown plugin: %v", err)
	}
}

func TestBadManifests(t *testing.T) {
	for text, want := range map[string]string{
		`{"caddy":"v2"}`: "unknown field",
		`{"plugins":[]}`: "caddy_version",
		`{"caddy_version":"v2.11.9","plugins":[{"version":"v1"}]}`:           "no module",
		`{"caddy_version":"v2.11.9","plugins":[{"module":"example.com/a"}]}`: "neither version nor replacement",
	} {
		m, err := read(t, text)
		if err == nil {
			_, err = m.args(".", "caddy")
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error about %s", text, err, want)
		}
	}
}

func TestTheProjectsManifest(t *testing.T) {
	m, err := readManifest(filepath.Join("..", "..", "xcaddy.json"))
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(mod), "github.com/caddyserver/caddy/v2 "+m.CaddyVersion+"\n") {
		t.Errorf("xcaddy.json says Caddy %s, and go.mod another", m.CaddyVersion)
	}
}
