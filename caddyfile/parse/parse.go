// Package parse holds the helpers with which guests read their part of a Caddyfile: a
// table of options in, and errors out that name file, line and the words that would be
// right.
package parse

import (
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
)

// Option is one word that a block understands.
type Option struct {
	Name string
	// Repeat allows the option more than once.
	Repeat bool
	// Set reads the option's arguments and its own block, the cursor being on Name.
	Set func(d *caddyfile.Dispenser) error
}

// Block reads the block that d stands before, if there is one. what names the block in
// errors. Arguments on the same line must have been consumed.
func Block(d *caddyfile.Dispenser, what string, options ...Option) error {
	seen := make(map[string]int)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		i := slices.IndexFunc(options, func(o Option) bool { return o.Name == name })
		if i < 0 {
			return d.Errf("unknown option %q in %s: use %s", name, what, words(options))
		}
		if line, again := seen[name]; again && !options[i].Repeat {
			return d.Errf("option %q in %s stands twice, first on line %d", name, what, line)
		}
		seen[name] = d.Line()
		if err := options[i].Set(d); err != nil {
			return err
		}
	}
	return nil
}

func words(options []Option) string {
	if len(options) == 0 {
		return "no options: it has none"
	}
	names := make([]string, len(options))
	for i, o := range options {
		names[i] = o.Name
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// one reads exactly one argument.
func one(d *caddyfile.Dispenser) (string, error) {
	name := d.Val()
	if !d.NextArg() {
		return "", d.Errf("option %q needs a value", name)
	}
	value := d.Val()
	if d.NextArg() {
		return "", d.Errf("option %q takes one value, and %q is one too many", name, d.Val())
	}
	return value, nil
}

// String reads one argument.
func String(name string, into *string) Option {
	return Option{Name: name, Set: func(d *caddyfile.Dispenser) (err error) {
		*into, err = one(d)
		return err
	}}
}

// OneOf reads one argument that must be one of the allowed words.
func OneOf[T ~string](name string, into *T, allowed ...T) Option {
	return Option{Name: name, Set: func(d *caddyfile.Dispenser) error {
		value, err := one(d)
		if err != nil {
			return err
		}
		if !slices.Contains(allowed, T(value)) {
			texts := make([]string, len(allowed))
			for i, a := range allowed {
				texts[i] = string(a)
			}
			return d.Errf("%s %q: use %s", name, value, strings.Join(texts, ", "))
		}
		*into = T(value)
		return nil
	}}
}

// Strings reads one or more arguments. Repeating the option adds to them.
func Strings(name string, into *[]string) Option {
	return Option{Name: name, Repeat: true, Set: func(d *caddyfile.Dispenser) error {
		args := d.RemainingArgs()
		if len(args) == 0 {
			return d.Errf("option %q needs at least one value", name)
		}
		*into = append(*into, args...)
		return nil
	}}
}

// Pairs reads a name and a value. Repeating the option adds to them.
func Pairs(name string, add func(key, value string)) Option {
	return Option{Name: name, Repeat: true, Set: func(d *caddyfile.Dispenser) error {
		args := d.RemainingArgs()
		if len(args) != 2 {
			return d.Errf("option %q needs a name and a value", name)
		}
		add(args[0], args[1])
		return nil
	}}
}

// Duration reads one duration in Caddy's form (5s, 1m30s, 2d), not negative.
func Duration(name string, into *caddy.Duration) Option {
	return Option{Name: name, Set: func(d *caddyfile.Dispenser) error {
		value, err := one(d)
		if err != nil {
			return err
		}
		dur, err := caddy.ParseDuration(value)
		if err != nil || dur < 0 {
			return d.Errf("%s %q is not a duration: write it like 500ms, 5s, 2m or 1d", name, value)
		}
		*into = caddy.Duration(dur)
		return nil
	}}
}

// OptionalDuration is Duration for options whose zero means something: off turns the
// thing off.
func OptionalDuration(name string, into **caddy.Duration) Option {
	return Option{Name: name, Set: func(d *caddyfile.Dispenser) error {
		value, err := one(d)
		if err != nil {
			return err
		}
		if value == "off" {
			*into = new(caddy.Duration)
			return nil
		}
		dur, err := caddy.ParseDuration(value)
		if err != nil || dur < 0 {
			return d.Errf("%s %q is not a duration: write it like 500ms, 5s, 2m or 1d, or off", name, value)
		}
		v := caddy.Duration(dur)
		*into = &v
		return nil
	}}
}

// Int reads one whole number of at least least.
func Int(name string, into *int, least int) Option {
	return Option{Name: name, Set: func(d *caddyfile.Dispenser) error {
		value, err := one(d)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < least {
			return d.Errf("%s %q is not a whole number of at least %d", name, value, least)
		}
		*into = n
		return nil
	}}
}

// Size reads one humanised size (64KiB, 1MB) into bytes.
func Size(name string, into *int64) Option {
	return Option{Name: name, Set: func(d *caddyfile.Dispenser) error {
		value, err := one(d)
		if err != nil {
			return err
		}
		n, err := humanize.ParseBytes(value)
		if err != nil || n == 0 || n > 1<<40 {
			return d.Errf("%s %q is not a size: write it like 64KiB or 1MiB", name, value)
		}
		*into = int64(n)
		return nil
	}}
}

// Flag reads nothing, on or off; alone it means on.
func Flag(name string, into *bool) Option {
	return Option{Name: name, Set: func(d *caddyfile.Dispenser) error {
		*into = true
		if !d.NextArg() {
			return nil
		}
		switch d.Val() {
		case "on":
		case "off":
			*into = false
		default:
			return d.Errf("%s %q: use on or off", name, d.Val())
		}
		if d.NextArg() {
			return d.Errf("option %q takes one value, and %q is one too many", name, d.Val())
		}
		return nil
	}}
}

// OptionalFlag is Flag for options whose default is on.
func OptionalFlag(name string, into **bool) Option {
	return Option{Name: name, Set: func(d *caddyfile.Dispenser) error {
		value := new(bool)
		if err := Flag(name, value).Set(d); err != nil {
			return err
		}
		*into = value
		return nil
	}}
}

// Nested reads a block of its own, without arguments.
func Nested(name string, options ...Option) Option {
	return Option{Name: name, Set: func(d *caddyfile.Dispenser) error {
		if d.NextArg() {
			return d.Errf("%s takes no value here, but a block: %q is one too many", name, d.Val())
		}
		return Block(d, name, options...)
	}}
}

// NoArgs complains about arguments that stand on the rest of the line.
func NoArgs(d *caddyfile.Dispenser) error {
	what := d.Val()
	if d.NextArg() {
		return d.Errf("%s takes no value here: %q is one too many", what, d.Val())
	}
	return nil
}
