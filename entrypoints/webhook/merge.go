package webhook

import (
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// kept is what is shown in the place of a secret, and means that secret when it comes back.
const kept = "***"

// credentials are the members of auth that are shown as kept.
var credentials = []string{"password", "token", "client_secret"}

// mergePatch is RFC 7386: null takes a member away, objects are merged, and everything else
// is put in the place of what was there. Neither argument is changed.
func mergePatch(target, patch map[string]any) map[string]any {
	merged := maps.Clone(target)
	if merged == nil {
		merged = make(map[string]any)
	}
	for name, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(merged, name)
		case map[string]any:
			inner, _ := merged[name].(map[string]any)
			merged[name] = mergePatch(inner, value)
		default:
			merged[name] = value
		}
	}
	return merged
}

// merge makes the configuration that is asked for out of the one in force (nil is none) and
// a patch, with the secrets that the patch only hints at.
func merge(old, asked map[string]any) (map[string]any, entrypoints.Flaws) {
	asked = canonicalHeaders(asked)
	base := old
	if before, now := member(old, "auth", "type"), member(asked, "auth", "type"); before != nil && now != nil && before != now {
		base = maps.Clone(old) // the members of another type of auth mean nothing any more
		delete(base, "auth")
	}
	merged := mergePatch(base, asked)
	flaws := keepCredentials(old, asked, merged)
	return merged, append(flaws, keepSecrets(old, merged)...)
}

// canonicalHeaders has null find the header that it takes away, however it is written.
func canonicalHeaders(asked map[string]any) map[string]any {
	headers, ok := asked["headers"].(map[string]any)
	if !ok {
		return asked
	}
	asked, canonical := maps.Clone(asked), make(map[string]any, len(headers))
	for _, name := range sortedKeys(headers) {
		key := http.CanonicalHeaderKey(name)
		here, list := headers[name].([]any)
		if before, again := canonical[key].([]any); again && list {
			canonical[key] = append(before, here...)
			continue
		}
		canonical[key] = headers[name]
	}
	asked["headers"] = canonical
	return asked
}

// keepCredentials puts the credentials of auth back where they are only hinted at. Those that
// are kept are sent to nobody else: where the callback, or the place that tokens come from, is
// on another host now, they must be given again.
func keepCredentials(old, asked, merged map[string]any) (flaws entrypoints.Flaws) {
	auth, _ := merged["auth"].(map[string]any)
	if auth == nil {
		return nil
	}
	moved := old != nil && (origin(merged["callback"]) != origin(old["callback"]) ||
		origin(auth["token_url"]) != origin(member(old, "auth", "token_url")))
	for _, name := range credentials {
		value, present := auth[name]
		if !present {
			continue
		}
		given := member(asked, "auth", name)
		if given != nil && given != kept {
			continue
		}
		path := "auth." + name
		before := member(old, "auth", name)
		switch {
		case value == kept && (before == nil || member(old, "auth", "type") != auth["type"]):
			flaws = append(flaws, flaw(path, "%s stands for the one in force, and there is none: give it in full", kept)...)
		case moved:
			flaws = append(flaws, flaw(path, "what is called is on another host now: give it again in full")...)
		default:
			auth[name] = before // auth was made by the merge, and is nobody else's
		}
	}
	return flaws
}

// keepSecrets puts the signing secrets back where there are only hints.
func keepSecrets(old, merged map[string]any) (flaws entrypoints.Flaws) {
	list, _ := merged["secrets"].([]any)
	if list == nil {
		return nil
	}
	before, _ := old["secrets"].([]any)
	full := make([]any, len(list))
	for i, entry := range list {
		full[i] = entry
		hinted, ok := entry.(map[string]any)
		if !ok {
			continue
		}
		hint, text := hinted["hint"].(string)
		if !text || len(hinted) != 1 {
			flaws = append(flaws, flaw(at("secrets", i), `give a secret, or the hint of one in force like {"hint":"…abcd"}`)...)
			full[i] = ""
			continue
		}
		if full[i] = hintedAt(before, hint, i); full[i] == nil {
			flaws = append(flaws, flaw(at("secrets", i), "no secret in force has this hint: give it in full")...)
			full[i] = ""
		}
	}
	merged["secrets"] = full
	return flaws
}

// hintedAt finds the secret with the hint, at its own place first, because two may end alike.
func hintedAt(secrets []any, hint string, place int) any {
	if place < len(secrets) {
		if text, _ := secrets[place].(string); hintOf(text) == hint {
			return text
		}
	}
	for _, secret := range secrets {
		if text, _ := secret.(string); hintOf(text) == hint {
			return text
		}
	}
	return nil
}

// hintOf tells secrets apart without telling them.
func hintOf(secret string) string { return "…" + secret[max(0, len(secret)-hintLength):] }

const hintLength = 4

// shown is what may be seen of a configuration.
func shown(whole map[string]any) map[string]any {
	seen := maps.Clone(whole)
	if list, ok := whole["secrets"].([]any); ok {
		hints := make([]any, len(list))
		for i, entry := range list {
			text, _ := entry.(string)
			hints[i] = map[string]any{"hint": hintOf(text)}
		}
		seen["secrets"] = hints
	}
	if auth, ok := whole["auth"].(map[string]any); ok {
		auth = maps.Clone(auth)
		for _, name := range credentials {
			if _, present := auth[name]; present {
				auth[name] = kept
			}
		}
		seen["auth"] = auth
	}
	return seen
}

// origin is what decides who gets to see a credential.
func origin(address any) string {
	text, _ := address.(string)
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	return strings.ToLower(u.Scheme + "://" + u.Host)
}

// member is the named member of a member, or nil.
func member(tree map[string]any, outer, inner string) any {
	object, _ := tree[outer].(map[string]any)
	value := object[inner]
	if value != nil && !reflect.TypeOf(value).Comparable() {
		return nil // a list or an object, which decode complains about
	}
	return value
}
