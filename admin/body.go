package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"
)

const (
	// maxBody bounds the body of every write but an import.
	maxBody = 1 << 20
	// maxImport bounds an import.
	maxImport = 1 << 30
)

// refuse makes a problem.
func refuse(status int, slug, format string, args ...any) *ProblemDetails {
	return &ProblemDetails{
		Type: ProblemPrefix + slug, Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...),
	}
}

// checkMediaType lets in what no page of another site can send without asking first: a form
// has a type of its own, also an empty one.
func checkMediaType(r *http.Request) error {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return refuse(http.StatusUnsupportedMediaType, MediaType, "the body has the Content-Encoding %q: send it as it is", encoding)
	}
	given := r.Header.Get("Content-Type")
	if given == "" && r.ContentLength == 0 {
		return nil
	}
	if mediaType, _, err := mime.ParseMediaType(given); err != nil || mediaType != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, MediaType, "the Content-Type is %q: it must be application/json", given)
	}
	return nil
}

// readBody reads a body that is one JSON value into v, and reports everything in it that v
// has no place for. optional says that there may be none.
func readBody(w http.ResponseWriter, r *http.Request, v any, optional bool) error {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return refuse(http.StatusRequestEntityTooLarge, TooLarge, "the body is longer than %d bytes", maxBody)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, BadRequest, "the body broke off; nothing was changed")
	}
	if len(text) == 0 && optional {
		return nil
	}
	return decodeBody(text, v)
}

// decodeBody decodes one JSON value into v.
func decodeBody(text []byte, v any) error {
	if len(strings.TrimSpace(string(text))) == 0 {
		return invalidBody("the body is empty: it must be a JSON object")
	}
	if !utf8.Valid(text) {
		return invalidBody("the body is not UTF-8")
	}
	var raw json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return invalidBody("the body is no JSON: %s", syntaxDetail(text, err))
	}
	if problems := checkShape(raw, v); len(problems) > 0 {
		problem := invalidBody("the body is not what this request takes")
		problem.Problems = problems
		return problem
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return invalidBody("the body is not what this request takes") // checkShape has decoded every part of it
	}
	return nil
}

func invalidBody(format string, args ...any) *ProblemDetails {
	return refuse(http.StatusBadRequest, InvalidBody, format, args...)
}

// syntaxDetail says where it went wrong, as editors count.
func syntaxDetail(text []byte, err error) string {
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if !ok {
		return err.Error()
	}
	before := string(text[:min(max(int(syntax.Offset)-1, 0), len(text))])
	line := strings.Count(before, "\n") + 1
	column := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Sprintf("line %d, column %d: %v", line, column, err)
}

// clip bounds what is repeated of a request.
func clip(text string) string {
	if len(text) <= 128 {
		return text
	}
	return strings.ToValidUTF8(text[:128], "") + "…"
}
