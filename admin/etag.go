package admin

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"strconv"
	"strings"
)

// etagOf is the ETag of a version.
func etagOf(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

// etagWith is the ETag of a resource that also shows what no version counts, such as what is
// running: the version, and a sum of the rest. In If-Match the version alone counts.
func etagWith(version uint64, rest any) string {
	text, err := json.Marshal(rest)
	if err != nil { // then nobody must take two of them for the same
		return ""
	}
	sum := fnv.New64a()
	_, _ = sum.Write(text)
	return fmt.Sprintf(`"%d-%x"`, version, sum.Sum64())
}

// expected is what If-Match says.
type expected struct {
	// version that the resource must have; 0 is any, unless exact.
	version uint64
	// exact: there is a version, which may be 0.
	exact bool
	// there: "*", so the resource must exist.
	there bool
}

// ifMatch reads If-Match.
func ifMatch(r *http.Request) (expected, error) {
	given := strings.TrimSpace(strings.Join(r.Header.Values("If-Match"), ","))
	switch given {
	case "":
		return expected{}, nil
	case "*":
		return expected{there: true}, nil
	}
	inner, ok := strings.CutPrefix(given, `"`)
	inner, closed := strings.CutSuffix(inner, `"`)
	number, _, _ := strings.Cut(inner, "-")
	version, err := strconv.ParseUint(number, 10, 64)
	if !ok || !closed || err != nil {
		return expected{}, refuse(http.StatusBadRequest, BadRequest,
			`If-Match is %q: write the ETag of the resource, with its quotes, like "7", or *`, clip(given))
	}
	return expected{version: version, exact: true}, nil
}

// failed is the answer to an If-Match that does not hold.
func failed(format string, args ...any) error {
	return refuse(http.StatusPreconditionFailed, Precondition, format, args...)
}

// check compares with what there is, as far as the registries don't: they know no version 0
// and no "*". Otherwise they compare by themselves, under the store's lock.
func (e expected) check(what string, version uint64, there bool) error {
	switch {
	case e.there && !there:
		return failed("there is no %s", what)
	case e.exact && e.version == 0 && version != 0:
		return failed(`the %s has changed: its ETag is %s, not "0"; read it again`, what, etagOf(version))
	}
	return nil
}

// ifNoneMatchAny reports whether If-None-Match is "*": the request is to make something new.
func ifNoneMatchAny(r *http.Request) (bool, error) {
	switch given := r.Header.Get("If-None-Match"); given {
	case "":
		return false, nil
	case "*":
		return true, nil
	default:
		return false, refuse(http.StatusBadRequest, BadRequest, "If-None-Match is %q: with a write it can only be *", clip(given))
	}
}

// noneMatch reports whether the client has the representation with this ETag already.
func noneMatch(r *http.Request, etag string) bool {
	for _, list := range r.Header.Values("If-None-Match") {
		for tag := range strings.SplitSeq(list, ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
				return true
			}
		}
	}
	return false
}
