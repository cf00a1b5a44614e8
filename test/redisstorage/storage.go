package redisstorage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/redis/go-redis/v9"
)

const (
	defaultPrefix  = "caddy"
	defaultLockTTL = 5 * time.Second
	defaultTimeout = 3 * time.Second
)

// Options are what a Storage needs. Those that are zero have the defaults of Module.
type Options struct {
	Address, Prefix  string
	LockTTL, Timeout time.Duration
}

// Storage is a certmagic.Storage in Redis, with the manners of certmagic.FileStorage. A file
// is a hash with its value and time; one sorted set holds the names of all files, in the order
// of their bytes, so that what is below a name is found without looking at the rest.
type Storage struct {
	options Options
	client  *redis.Client

	mu   sync.Mutex
	held map[string]*lease // by the lock's name in Redis
}

// The fields of a file.
const (
	valueField    = "value"
	modifiedField = "modified" // nanoseconds since 1970
)

// Open makes a storage. It talks to nobody.
func Open(o Options) *Storage {
	o.Prefix = cmp.Or(o.Prefix, defaultPrefix)
	o.LockTTL, o.Timeout = cmp.Or(o.LockTTL, defaultLockTTL), cmp.Or(o.Timeout, defaultTimeout)
	return &Storage{options: o, held: make(map[string]*lease), client: redis.NewClient(&redis.Options{
		Addr:        o.Address,
		DialTimeout: o.Timeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout,
		ContextTimeoutEnabled: true,
		MaxRetries:            -1, // who calls decides that
		DialerRetries:         1,
	})}
}

// Destruct implements caddy.Destructor.
func (s *Storage) Destruct() error {
	s.letGo()
	return s.client.Close()
}

// String tells one storage from another.
func (s *Storage) String() string { return "redis " + s.options.Address + " " + s.options.Prefix }

// clean is a key as it is stored. "" is the folder of everything.
func clean(key string) string { return strings.TrimPrefix(path.Clean("/"+key), "/") }

func (s *Storage) file(key string) string { return s.options.Prefix + ":file:" + key }

func (s *Storage) index() string { return s.options.Prefix + ":index" }

// Store implements certmagic.Storage.
func (s *Storage) Store(ctx context.Context, key string, value []byte) error {
	key = clean(key)
	_, err := s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.HSet(ctx, s.file(key), valueField, value, modifiedField, time.Now().UnixNano())
		p.ZAdd(ctx, s.index(), redis.Z{Member: key})
		return nil
	})
	return s.wrap(ctx, "storing", key, err)
}

// Load implements certmagic.Storage.
func (s *Storage) Load(ctx context.Context, key string) ([]byte, error) {
	key = clean(key)
	value, err := s.client.HGet(ctx, s.file(key), valueField).Bytes()
	return value, s.wrap(ctx, "loading", key, err)
}

// Delete implements certmagic.Storage.
func (s *Storage) Delete(ctx context.Context, key string) error {
	key = clean(key)
	names, err := s.below(ctx, key)
	if err == nil {
		_, err = s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
			for _, name := range append(names, key) {
				p.Del(ctx, s.file(name))
				p.ZRem(ctx, s.index(), name)
			}
			return nil
		})
	}
	return s.wrap(ctx, "deleting", key, err)
}

// Exists implements certmagic.Storage.
func (s *Storage) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// List implements certmagic.Storage. As with files, a recursive one names folders too.
func (s *Storage) List(ctx context.Context, folder string, recursive bool) ([]string, error) {
	folder = clean(folder)
	names, err := s.below(ctx, folder)
	if err != nil {
		return nil, s.wrap(ctx, "listing", folder, err)
	}
	if len(names) == 0 {
		_, err := s.Stat(ctx, folder) // a file has nothing below it
		return nil, err
	}
	var list []string
	seen := make(map[string]bool)
	for _, name := range names {
		at := 0
		if folder != "" {
			at = len(folder) + 1
		}
		for more := true; more; {
			var step string
			step, _, more = strings.Cut(name[at:], "/")
			at += len(step) + 1
			if entry := name[:at-1]; !seen[entry] {
				seen[entry] = true
				list = append(list, entry)
			}
			more = more && recursive
		}
	}
	return list, nil
}

// Stat implements certmagic.Storage.
func (s *Storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	key = clean(key)
	var modified *redis.StringCmd
	var size *redis.Cmd
	_, err := s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		modified = p.HGet(ctx, s.file(key), modifiedField)
		size = p.Do(ctx, "HSTRLEN", s.file(key), valueField)
		return nil
	})
	if err == nil {
		return s.info(ctx, key, modified.Val(), size)
	}
	if errors.Is(err, redis.Nil) {
		var names []string
		if names, err = s.some(ctx, key, 1); err == nil && len(names) == 0 {
			err = redis.Nil
		}
	}
	return certmagic.KeyInfo{Key: key}, s.wrap(ctx, "looking for", key, err)
}

func (s *Storage) info(ctx context.Context, key, modified string, size *redis.Cmd) (certmagic.KeyInfo, error) {
	ns, err := strconv.ParseInt(modified, 10, 64)
	if err != nil {
		return certmagic.KeyInfo{}, s.wrap(ctx, "reading the time of", key, err)
	}
	length, err := size.Int64()
	return certmagic.KeyInfo{Key: key, Modified: time.Unix(0, ns), Size: length, IsTerminal: true}, s.wrap(ctx, "reading the size of", key, err)
}

// below are the names of all files in a folder, sorted.
func (s *Storage) below(ctx context.Context, folder string) ([]string, error) {
	return s.some(ctx, folder, -1)
}

// some are the first of them.
func (s *Storage) some(ctx context.Context, folder string, most int64) ([]string, error) {
	low, high := "["+folder+"/", "("+folder+"0" // '0' comes after '/'
	if folder == "" {
		low, high = "-", "+"
	}
	return s.client.ZRangeArgs(ctx, redis.ZRangeArgs{
		Key: s.index(), Start: low, Stop: high, ByLex: true, Count: most,
	}).Result()
}

func (s *Storage) wrap(ctx context.Context, doing, key string, err error) error {
	deadline, limited := ctx.Deadline()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, redis.Nil):
		err = fs.ErrNotExist
	case ctx.Err() != nil:
		err = ctx.Err()
	case limited && !time.Now().Before(deadline): // the connection knows it a moment earlier
		err = context.DeadlineExceeded
	}
	return fmt.Errorf("%s %q in Redis at %s: %w", doing, key, s.options.Address, err)
}

// Interface guards.
var (
	_ certmagic.Storage = (*Storage)(nil)
	_ fmt.Stringer      = (*Storage)(nil)
)
