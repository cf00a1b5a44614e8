package admin

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
)

// pages are the parameters of every list.
var pages = []string{"limit", "after"}

// checkQuery refuses parameters that the route does not know: a slip of the pen in
// ?dry_run= must not save. Only group can stand there more than once.
func checkQuery(r *http.Request, known []string) error {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return refuse(http.StatusBadRequest, BadRequest, "the query string can't be read")
	}
	for name, list := range values {
		if !slices.Contains(known, name) {
			if len(known) == 0 {
				return refuse(http.StatusBadRequest, BadRequest, "there is no parameter %q: this request takes none", clip(name))
			}
			return refuse(http.StatusBadRequest, BadRequest, "there is no parameter %q; there are %s", clip(name), strings.Join(known, ", "))
		}
		if len(list) > 1 && name != "group" {
			return refuse(http.StatusBadRequest, BadRequest, "the parameter %s stands there twice", name)
		}
	}
	return nil
}

// flag reads a parameter that is true or false; false if it is absent.
func flag(r *http.Request, name string) (bool, error) {
	switch text := r.URL.Query().Get(name); text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, refuse(http.StatusBadRequest, BadRequest, "%s is %q: write true or false", name, clip(text))
	}
}

// window is the part of a list that is asked for.
type window struct {
	limit int
	// after is the key of the last item of the page before.
	after string
}

func readWindow(r *http.Request) (window, error) {
	q, w := r.URL.Query(), window{limit: defaultLimit}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxLimit {
			return w, refuse(http.StatusBadRequest, BadRequest, "limit is %q: it is a whole number from 1 to %d", clip(text), maxLimit)
		}
		w.limit = n
	}
	if text := q.Get("after"); text != "" {
		key, err := base64.RawURLEncoding.Strict().DecodeString(text)
		if err != nil || len(key) == 0 {
			return w, badAfter(text)
		}
		w.after = string(key)
	}
	return w, nil
}

func badAfter(text string) error {
	return refuse(http.StatusBadRequest, BadRequest, "after is %q: it is what next was in the answer before", clip(text))
}

// pageOf makes a page of items, which come in the order of their keys and begin after
// w.after. It takes one more than it shows, to know whether there is a next page.
func pageOf[T any](w window, items func(yield func(T) bool), key func(T) string) Page[T] {
	page := Page[T]{Items: make([]T, 0, min(w.limit, defaultLimit))}
	for item := range items {
		if len(page.Items) == w.limit {
			page.Next = base64.RawURLEncoding.EncodeToString([]byte(key(page.Items[w.limit-1])))
			break
		}
		page.Items = append(page.Items, item)
	}
	return page
}

// sortedAfter sorts what is held as a whole, and begins after w.after.
func sortedAfter[T any](w window, items []T, key func(T) string) func(yield func(T) bool) {
	slices.SortFunc(items, func(a, b T) int { return strings.Compare(key(a), key(b)) })
	start := 0
	if w.after != "" {
		start, _ = slices.BinarySearchFunc(items, w.after, func(item T, after string) int {
			if key(item) <= after {
				return -1
			}
			return 1
		})
	}
	return slices.Values(items[start:])
}

// convertEach converts the items of a list.
func convertEach[A, B any](list []A, convert func(A) B) []B {
	out := make([]B, 0, len(list))
	for _, item := range list {
		out = append(out, convert(item))
	}
	return out
}
