// Package redisstorage is a Caddy storage module on Redis, for tests: what a cluster of
// gateways does on a storage with a server, which can be slow, hang, or be away. Importing it
// registers caddy.storage.redis_for_tests.
package redisstorage

import (
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
)

func init() { caddy.RegisterModule((*Module)(nil)) }

// Module configures the storage.
//
//	storage redis_for_tests {
//		address  <host:port>
//		prefix   <text>
//		lock_ttl <duration>
//		timeout  <duration>
//	}
type Module struct {
	// Address is where Redis is, as host:port. Required.
	Address string `json:"address,omitempty"`
	// Prefix begins all names in Redis. Default: caddy.
	Prefix string `json:"prefix,omitempty"`
	// LockTTL is how long a lock outlives a holder that is dead or can't reach Redis.
	// Default: 5s.
	LockTTL caddy.Duration `json:"lock_ttl,omitempty"`
	// Timeout bounds each exchange with Redis. Default: 3s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	storage *Storage
}

// pool keeps storages over reloads: who holds a lock gives it back to the same one.
var pool = caddy.NewUsagePool()

// CaddyModule implements caddy.Module.
func (*Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage.redis_for_tests", New: func() caddy.Module { return new(Module) }}
}

// options are what Open needs, which also tells one storage from another.
func (m *Module) options() Options {
	return Options{Address: m.Address, Prefix: m.Prefix, LockTTL: time.Duration(m.LockTTL), Timeout: time.Duration(m.Timeout)}
}

// Provision implements caddy.Provisioner. It talks to nobody.
func (m *Module) Provision(caddy.Context) error {
	if m.Address == "" {
		return errors.New("redis_for_tests: address is missing; write it like `address localhost:6379`")
	}
	val, _, err := pool.LoadOrNew(m.options(), func() (caddy.Destructor, error) { return Open(m.options()), nil })
	if err != nil {
		return err
	}
	m.storage = val.(*Storage)
	return nil
}

// CertMagicStorage implements caddy.StorageConverter.
func (m *Module) CertMagicStorage() (certmagic.Storage, error) { return m.storage, nil }

// Cleanup implements caddy.CleanerUpper.
func (m *Module) Cleanup() error {
	if m.storage == nil {
		return nil
	}
	_, err := pool.Delete(m.options())
	return err
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler.
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "storage redis_for_tests",
		parse.String("address", &m.Address), parse.String("prefix", &m.Prefix),
		parse.Duration("lock_ttl", &m.LockTTL), parse.Duration("timeout", &m.Timeout),
	)
}

// Interface guards.
var (
	_ caddy.Module           = (*Module)(nil)
	_ caddy.Provisioner      = (*Module)(nil)
	_ caddy.CleanerUpper     = (*Module)(nil)
	_ caddy.StorageConverter = (*Module)(nil)
	_ caddyfile.Unmarshaler  = (*Module)(nil)
)
