package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// maxDefinition is what the admin API takes.
const maxDefinition = 1 << 20

// readDefinition reads a file, or the standard input for "-".
func readDefinition(file string, stdin io.Reader) (name string, text []byte, err error) {
	name, source := file, stdin
	if file == "-" {
		name = "standard input"
	} else {
		f, err := os.Open(file)
		if err != nil {
			return name, nil, err
		}
		defer f.Close()
		source = f
	}
	text, err = io.ReadAll(io.LimitReader(source, maxDefinition+1))
	if err != nil {
		return name, nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(text) > maxDefinition {
		return name, nil, fmt.Errorf("%s is larger than %d KiB: a definition is not", name, maxDefinition>>10)
	}
	return name, bytes.TrimPrefix(text, []byte("\ufeff")), nil // as some editors begin a file
}

// isJSON says whether to take a text for JSON. A Caddyfile can begin with a brace too, but
// what follows there is no quotation mark.
func isJSON(text []byte) bool {
	text = bytes.TrimSpace(text)
	if len(text) == 0 || text[0] != '{' {
		return false
	}
	rest := bytes.TrimSpace(text[1:])
	return len(rest) > 0 && (rest[0] == '"' || rest[0] == '}')
}

// definitionOf makes the definition of an API of a file: JSON as the admin API takes it, the
// block that would stand in a site of a Caddyfile, or what an adapter makes JSON of.
func definitionOf(name string, text []byte, adapter string) (json.RawMessage, error) {
	raw, isCaddyfile, err := asJSON(name, text, adapter)
	if err != nil || !isCaddyfile {
		return raw, err
	}
	found, err := fragment(name, text, "message_api", "http:// { ", "\n}\n")
	if err != nil {
		return nil, err
	}
	if len(found) > 1 {
		return nil, fmt.Errorf("%s has %d APIs: save each from a file of its own", name, len(found))
	}
	return found[0], nil
}

// planOf makes the definition of a plan of a file, likewise.
func planOf(name string, text []byte, adapter, plan string) (json.RawMessage, error) {
	raw, isCaddyfile, err := asJSON(name, text, adapter)
	if err != nil || !isCaddyfile {
		return raw, err
	}
	found, err := fragment(name, text, "plan", "http:// { message_api / {\n", "\n}\n}\n")
	if err != nil {
		return nil, err
	}
	var api map[string]json.RawMessage
	var plans []map[string]json.RawMessage
	if err := json.Unmarshal(found[0], &api); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(api) != 2 || json.Unmarshal(api["plans"], &plans) != nil || len(plans) != 1 { // the other is paths
		return nil, fmt.Errorf("%s must have one plan and nothing else, like `plan api_key { ... }`, or be JSON", name)
	}
	return named(plans[0], name, plan)
}

// named makes sure that a plan has the name under which it is put. One without a name of its
// own was called by its type.
func named(definition map[string]json.RawMessage, file, plan string) (json.RawMessage, error) {
	var name string
	var guest struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(definition["name"], &name) == nil && json.Unmarshal(definition["plan"], &guest) == nil &&
		name != guest.Type && name != plan {
		return nil, fmt.Errorf("the plan in %s is called %s, and not %s", file, name, plan)
	}
	raw, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	definition["name"] = raw
	return json.Marshal(definition)
}

// asJSON returns the JSON that a text is or that an adapter makes of it, or says that the text
// is to be taken for a Caddyfile.
func asJSON(name string, text []byte, adapter string) (raw json.RawMessage, isCaddyfile bool, err error) {
	switch {
	case adapter == "caddyfile" || adapter == "" && !isJSON(text):
		return nil, true, nil
	case adapter == "" || adapter == "json":
		raw = text
	default:
		a := caddyconfig.GetAdapter(adapter)
		if a == nil {
			return nil, false, fmt.Errorf("there is no config adapter %q", adapter)
		}
		if raw, _, err = a.Adapt(text, map[string]any{"filename": name}); err != nil {
			return nil, false, fmt.Errorf("%s: %w", name, err)
		}
	}
	return raw, false, checkJSON(name, raw)
}

// checkJSON says where JSON is broken, which the admin API can't say by line.
func checkJSON(name string, text []byte) error {
	var v map[string]any
	err := json.Unmarshal(text, &v)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line := 1 + bytes.Count(text[:min(int(syntax.Offset), len(text))], []byte("\n"))
		return fmt.Errorf("%s:%d: this is no JSON: %w", name, line, err)
	}
	if err != nil {
		return fmt.Errorf("%s is no JSON object", name)
	}
	return nil
}

// fragment adapts a piece of a Caddyfile that begins with a word, and returns the definitions
// in it.
func fragment(name string, text []byte, word, before, after string) ([]json.RawMessage, error) {
	begin, err := beginning(name, text, word)
	if err != nil {
		return nil, err
	}
	// The surroundings are put where it begins, which is behind comments, and on the same
	// line if that is allowed, so that errors tell the right lines.
	lines := strings.SplitAfter(string(text), "\n")
	wrapped := strings.Join(lines[:begin-1], "") + before + strings.Join(lines[begin-1:], "") + after
	// The warnings are about its formatting, which is ours by now.
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(wrapped), map[string]any{"filename": name})
	if err != nil {
		return nil, plainError(name, err, strings.Count(before, "\n"))
	}
	return handlers(name, config)
}

// beginning checks that a text is one piece that begins with a word, and says on which line.
func beginning(name string, text []byte, word string) (line int, err error) {
	tokens, err := caddyfile.Tokenize(text, name)
	if len(tokens) == 0 || errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("%s is empty", name)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	if tokens[0].Text != word {
		return 0, fmt.Errorf("%s:%d: write the block `%s ... { ... }` alone, as it would stand in a Caddyfile, or JSON: what stands around it is not saved",
			name, tokens[0].Line, word)
	}
	depth := 0
	for _, token := range tokens {
		switch {
		case token.Quoted():
		case token.Text == "{":
			depth++
		case token.Text == "}":
			depth--
		}
		if depth < 0 {
			return 0, fmt.Errorf("%s:%d: this } closes nothing", name, token.Line)
		}
	}
	if depth > 0 {
		return 0, fmt.Errorf("%s: a } is missing at the end", name)
	}
	return tokens[0].Line, nil
}

// inTokens is what an error says about Caddy's parser and not about the file.
var inTokens = regexp.MustCompile(`^parsing caddyfile tokens for '[a-z_]+': `)

// plainError makes an error of Caddy's parser one about the file, before which more lines were
// put than it has.
func plainError(name string, err error, more int) error {
	text := inTokens.ReplaceAllString(err.Error(), "")
	place := regexp.MustCompile(regexp.QuoteMeta(name) + `:(\d+)`)
	return errors.New(place.ReplaceAllStringFunc(text, func(at string) string {
		line, err := strconv.Atoi(at[len(name)+1:])
		if err != nil {
			return at
		}
		return name + ":" + strconv.Itoa(max(1, line-more))
	}))
}

// handlers finds the APIs in what was adapted, each once: one with several paths stands there
// several times. Anything else would silently not be saved, such as what keeps strangers
// out, and is an error.
func handlers(name string, config []byte) ([]json.RawMessage, error) {
	var tree struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []struct {
						Match  []map[string]json.RawMessage `json:"match"`
						Handle []map[string]json.RawMessage `json:"handle"`
					} `json:"routes"`
				} `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &tree); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var found []json.RawMessage
	for _, server := range tree.Apps.HTTP.Servers {
		for _, route := range server.Routes {
			for _, match := range route.Match {
				delete(match, "path")
				if len(match) > 0 {
					return nil, fmt.Errorf("%s: an API that is saved can't have a matcher: only its paths are kept", name)
				}
			}
			for _, handle := range route.Handle {
				if string(handle["handler"]) != `"message_api"` {
					return nil, fmt.Errorf("%s: only message_api can be saved, and not %s", name, handle["handler"])
				}
				delete(handle, "handler")
				raw, err := json.Marshal(handle)
				if err != nil {
					return nil, err
				}
				if !slices.ContainsFunc(found, func(other json.RawMessage) bool { return bytes.Equal(other, raw) }) {
					found = append(found, raw)
				}
			}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no message_api that could be saved", name)
	}
	return found, nil
}

var notKebab = regexp.MustCompile(`[^a-z0-9]+`)

// idOf is the id of a definition, by the rule of the gateway: what it says, else its first
// path in kebab case.
func idOf(definition json.RawMessage) (string, error) {
	var head struct {
		ID    string   `json:"id"`
		Paths []string `json:"paths"`
	}
	if err := json.Unmarshal(definition, &head); err != nil {
		return "", fmt.Errorf("this is no definition of an API: %w", err)
	}
	switch {
	case head.ID != "":
		return head.ID, nil
	case len(head.Paths) == 0:
		return "", errors.New("the definition has neither an id nor a path: give it an id, or name one before the file")
	}
	if id := strings.Trim(notKebab.ReplaceAllString(strings.ToLower(head.Paths[0]), "-"), "-"); id != "" {
		return id, nil
	}
	return "root", nil
}
