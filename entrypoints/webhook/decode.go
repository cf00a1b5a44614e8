package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// maxConsumer bounds a configuration, in bytes: all of them are in memory.
const maxConsumer = 64 << 10

// object reads one JSON object. Numbers stay as they are written.
func object(raw json.RawMessage) (map[string]any, error) {
	if len(raw) > maxConsumer {
		return nil, flaw("", "%d bytes are more than %d", len(raw), maxConsumer)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, flaw("", "not JSON: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, flaw("", "something stands behind the JSON object")
	}
	members, ok := tree.(map[string]any)
	if !ok {
		return nil, flaw("", "a JSON object is needed, like {\"callback\":\"https://example.com/hook\"}")
	}
	return members, nil
}

func flaw(path, format string, args ...any) entrypoints.Flaws {
	return entrypoints.Flaws{{Path: path, Detail: fmt.Sprintf(format, args...)}}
}

// decode puts the members of tree into the struct that into points to. Member names count to
// the letter, and everything that is wrong is told, and not only the first.
func decode(tree map[string]any, into any) entrypoints.Flaws {
	return decodeStruct("", tree, reflect.ValueOf(into).Elem())
}

func decodeStruct(path string, tree map[string]any, into reflect.Value) (flaws entrypoints.Flaws) {
	fields := make(map[string]reflect.Value)
	for i := range into.NumField() {
		name, _, _ := strings.Cut(into.Type().Field(i).Tag.Get("json"), ",")
		fields[name] = into.Field(i)
	}
	for _, name := range sortedKeys(tree) {
		field, ok := fields[name]
		if !ok {
			flaws = append(flaws, flaw(below(path, name), "unknown: use %s", listed(sortedKeys(fields)))...)
			continue
		}
		flaws = append(flaws, decodeValue(below(path, name), tree[name], field)...)
	}
	return flaws
}

func decodeValue(path string, value any, into reflect.Value) entrypoints.Flaws {
	if into.Kind() == reflect.Pointer && into.Type().Elem().Kind() == reflect.Struct {
		members, ok := value.(map[string]any)
		if !ok {
			return flaw(path, "a JSON object is needed")
		}
		into.Set(reflect.New(into.Type().Elem()))
		return decodeStruct(path, members, into.Elem())
	}
	if hasNull(value) {
		return flaw(path, "null is no %s", needed(into.Type()))
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return flaw(path, "%v", err)
	}
	if err = json.Unmarshal(raw, into.Addr().Interface()); err == nil {
		return nil
	}
	if _, ours := into.Addr().Interface().(json.Unmarshaler); ours {
		return flaw(path, "%v", err)
	}
	return flaw(path, "not %s", needed(into.Type()))
}

// hasNull looks into lists, and into objects of lists: encoding/json passes over null.
func hasNull(value any) bool {
	switch v := value.(type) {
	case nil:
		return true
	case []any:
		return slices.ContainsFunc(v, hasNull)
	case map[string]any:
		for _, member := range v {
			if hasNull(member) {
				return true
			}
		}
	}
	return false
}

// needed names what a member has to be.
func needed(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Int:
		return "a whole number"
	case reflect.Float64, reflect.Pointer: // the only pointers are to shares
		return "a number"
	case reflect.Slice:
		return "a list of texts"
	case reflect.Map:
		return `an object of lists of texts, like {"X-Name":["value"]}`
	default:
		return "a duration in quotes"
	}
}

func below(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
