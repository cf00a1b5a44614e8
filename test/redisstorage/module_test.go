package redisstorage_test

import (
	"context"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/test/redisstorage"
)

// module reads a Caddyfile's storage.
func module(text string) (*redisstorage.Module, error) {
	m := new(redisstorage.Module)
	return m, m.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text))
}

func TestCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		"redis_for_tests x":                              "takes no value",
		"redis_for_tests {\naddres x\n}":                 "unknown option",
		"redis_for_tests {\nlock_ttl soon\n}":            "is not a duration",
		"redis_for_tests {\naddress a:1\naddress b:1\n}": "twice",
	} {
		if _, err := module(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	m, err := module("redis_for_tests {\n}")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Provision(caddy.Context{}); err == nil || !strings.Contains(err.Error(), "address is missing") {
		t.Errorf("without address: %v", err)
	}
	if err := m.Cleanup(); err != nil {
		t.Error(err)
	}
}

// A reload keeps the storage, with the locks that are held; another address is another one.
func TestReloadKeepsTheStorage(t *testing.T) {
	text := "redis_for_tests {\naddress localhost:1\nprefix p\ntimeout 1s\nlock_ttl 2s\n}"
	var storages []string
	var modules []*redisstorage.Module
	for _, text := range []string{text, text, strings.ReplaceAll(text, ":1", ":2")} {
		m, err := module(text)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		defer cancel()
		if err := m.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		s, err := m.CertMagicStorage()
		if err != nil {
			t.Fatal(err)
		}
		modules, storages = append(modules, m), append(storages, s.(*redisstorage.Storage).String())
	}
	one, _ := modules[0].CertMagicStorage()
	two, _ := modules[1].CertMagicStorage()
	if one != two || storages[1] == storages[2] {
		t.Errorf("the storages are %q", storages)
	}
	for _, m := range modules {
		if err := m.Cleanup(); err != nil {
			t.Error(err)
		}
	}
}
