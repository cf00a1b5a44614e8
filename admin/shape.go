package admin

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// maxProblems bounds the answer to a body in which everything is wrong.
const maxProblems = 100

// maxDepth bounds how deep a definition is nested, and so how long the paths in it get.
const maxDepth = 100

// checkShape compares a JSON value with what Go has a place for. encoding/json would stop at
// the first thing that is wrong, not say where an unknown member stands, take NAME for name,
// and let the last of two members of one name win without a word.
func checkShape(raw json.RawMessage, v any) []Problem {
	s := shape{}
	s.value(raw, reflect.TypeOf(v).Elem(), "")
	return s.problems
}

type shape struct{ problems []Problem }

func (s *shape) add(path, format string, args ...any) {
	if len(s.problems) < maxProblems {
		s.problems = append(s.problems, Problem{Path: path, Detail: fmt.Sprintf(format, args...)})
	}
}

var (
	rawType         = reflect.TypeFor[json.RawMessage]()
	timeType        = reflect.TypeFor[time.Time]()
	optionalType    = reflect.TypeFor[interface{ valueType() reflect.Type }]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// valueType lets checkShape look into an Optional.
func (Optional[T]) valueType() reflect.Type { return reflect.TypeFor[T]() }

// value checks one value. raw is valid JSON.
func (s *shape) value(raw json.RawMessage, t reflect.Type, path string) {
	if t.Implements(optionalType) {
		t = reflect.Zero(t).Interface().(interface{ valueType() reflect.Type }).valueType()
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	raw = bytes.TrimSpace(raw)
	switch {
	case t == rawType:
		s.duplicates(raw, path)
	case string(raw) == "null" && path != "":
		// the same as absent, but in patches
	case reflect.PointerTo(t).Implements(jsonUnmarshaler), reflect.PointerTo(t).Implements(textUnmarshaler):
		s.leaf(raw, t, path)
	case t.Kind() == reflect.Struct, t.Kind() == reflect.Map:
		s.members(raw, t, path)
	case t.Kind() == reflect.Slice:
		s.elements(raw, t.Elem(), path)
	default:
		s.leaf(raw, t, path)
	}
}

func (s *shape) leaf(raw json.RawMessage, t reflect.Type, path string) {
	err := json.Unmarshal(raw, reflect.New(t).Interface())
	if err == nil {
		return
	}
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok || t == timeType {
		// What was sent is not repeated: it may be a secret in a wrong place.
		s.add(path, "%s is wanted here, not %s", wanted(t), kindOf(raw))
		return
	}
	s.add(path, "%v", err)
}

func (s *shape) members(raw json.RawMessage, t reflect.Type, path string) {
	if raw[0] != '{' {
		s.add(path, "an object is wanted here, not %s", kindOf(raw))
		return
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	_, _ = decoder.Token() // raw is valid: here and below nothing fails
	seen := map[string]bool{}
	for decoder.More() {
		token, _ := decoder.Token()
		name, _ := token.(string)
		var member json.RawMessage
		_ = decoder.Decode(&member)
		at := join(path, name)
		if seen[name] {
			s.add(at, "it stands there twice")
		}
		seen[name] = true
		if t.Kind() == reflect.Map {
			s.value(member, t.Elem(), at)
			continue
		}
		if field, ok := fieldNamed(t, name); ok {
			s.value(member, field, at)
			continue
		}
		s.add(at, "there is no such member; there are %s", strings.Join(fieldNames(t), ", "))
	}
}

func (s *shape) elements(raw json.RawMessage, t reflect.Type, path string) {
	var elements []json.RawMessage
	if json.Unmarshal(raw, &elements) != nil {
		s.add(path, "a list is wanted here, not %s", kindOf(raw))
		return
	}
	for i, element := range elements {
		s.value(element, t, path+"["+strconv.Itoa(i)+"]")
	}
}

// place is an object or list that is being read.
type place struct {
	path  string
	seen  map[string]bool // nil in a list
	index int
	name  string // the member that comes next; empty: its name does
	named bool
}

// duplicates finds members of one name in a definition, at any depth: which of the two would
// count is nothing that anybody should have to know. It does not recurse, since the depth is
// the sender's.
func (s *shape) duplicates(raw json.RawMessage, path string) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var stack []place
	for {
		token, err := decoder.Token()
		if err != nil {
			return // the end: raw is valid
		}
		top := len(stack) - 1
		if delim, ok := token.(json.Delim); ok && (delim == '}' || delim == ']') {
			stack = stack[:top]
			continue
		}
		at := path
		if top >= 0 {
			p := &stack[top]
			if p.seen != nil && !p.named {
				p.name, p.named = token.(string), true
				if p.seen[p.name] {
					s.add(join(p.path, p.name), "it stands there twice")
				}
				p.seen[p.name] = true
				continue
			}
			at = p.next()
		}
		if len(stack) == maxDepth {
			s.add(at, "it is nested deeper than %d levels", maxDepth)
			return
		}
		switch token {
		case json.Delim('{'):
			stack = append(stack, place{path: at, seen: map[string]bool{}})
		case json.Delim('['):
			stack = append(stack, place{path: at})
		}
		if len(s.problems) >= maxProblems {
			return
		}
	}
}

// next is the path of the value that comes now.
func (p *place) next() string {
	if p.seen != nil {
		p.named = false
		return join(p.path, p.name)
	}
	p.index++
	return p.path + "[" + strconv.Itoa(p.index-1) + "]"
}

// join makes the path of a member. Names that no member has are cut: they can be anything.
func join(path, name string) string {
	if len(name) > 64 {
		name = strings.ToValidUTF8(name[:64], "") + "…"
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

func fieldNamed(t reflect.Type, name string) (reflect.Type, bool) {
	for f := range t.Fields() {
		if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag == name && name != "" && name != "-" {
			return f.Type, true
		}
	}
	return nil, false
}

func fieldNames(t reflect.Type) []string {
	var names []string
	for f := range t.Fields() {
		if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag != "" && tag != "-" {
			names = append(names, tag)
		}
	}
	return names
}

func wanted(t reflect.Type) string {
	switch {
	case t == timeType:
		return "a time like 2026-12-31T23:59:59Z"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return "a whole number"
	}
	return "a text"
}

func kindOf(raw json.RawMessage) string {
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "this text"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "this number"
}
