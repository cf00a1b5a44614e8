package httpget

import (
	"net/http"
	"strconv"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// format is one representation of a response.
type format struct {
	name        string
	mediaType   string
	contentType string
	head        []byte
	// separated: each item begins with one byte that separates it from the one before.
	separated bool
	item      func(dst []byte, d *message.Delivery, parts parts) []byte
	// tail is what follows the items.
	tail func(dst []byte, c *collected, cursor []byte, ask ask) []byte
}

// parts are what an item holds beside id and content.
type parts struct{ headers, metadata bool }

// encoder makes items. They hold no cursor: the response has one for all.
type encoder struct {
	*format
	parts
	key string
}

func (f *format) encoder(e *Entrypoint) encoder {
	enc := encoder{format: f, parts: parts{e.HeadersInPayload, e.MetadataInPayload}, key: f.name}
	if enc.headers {
		enc.key += "+headers"
	}
	if enc.metadata {
		enc.key += "+metadata"
	}
	return enc
}

// Format implements entrypoints.Encoder.
func (e encoder) Format() string { return e.key }

// WantsCursor implements entrypoints.Encoder.
func (encoder) WantsCursor() bool { return false }

// Append implements entrypoints.Encoder.
func (e encoder) Append(dst []byte, d *message.Delivery, _ []byte) []byte {
	return e.item(dst, d, e.parts)
}

var formats = [...]*format{jsonFormat, xmlFormat, textFormat}

// negotiate picks a format by the Accept headers. XML and text must be preferred by
// name to win over JSON, and a client that prefers something that we do not have, as
// browsers do with text/html, gets JSON if it takes that at all.
func negotiate(headers []string) (*format, bool) {
	if len(headers) == 0 || len(headers) == 1 && (headers[0] == "*/*" || headers[0] == jsonFormat.mediaType) {
		return jsonFormat, true
	}
	accept := entrypoints.ParseAccept(headers)
	jsonQuality, jsonHow := accept.Match(jsonFormat.mediaType)
	foreign := foreignQuality(accept)
	best, bestQuality, bestHow := jsonFormat, jsonQuality, jsonHow
	for _, f := range formats[1:] {
		quality, how := accept.Match(f.mediaType)
		if quality == 0 || jsonQuality > 0 && quality < foreign {
			continue
		}
		if quality > bestQuality || quality == bestQuality && how == entrypoints.MatchNamed && bestHow < how {
			best, bestQuality, bestHow = f, quality, how
		}
	}
	return best, bestQuality > 0
}

// foreignQuality is the highest quality of a type that is named and that we do not have.
func foreignQuality(accept entrypoints.Accept) int {
	quality := 0
	for _, m := range accept {
		ours := m.Subtype == "*"
		for _, f := range formats {
			ours = ours || m.Type+"/"+m.Subtype == f.mediaType
		}
		if !ours {
			quality = max(quality, m.Quality)
		}
	}
	return quality
}

func notAcceptable() error {
	return &entrypoints.Problem{
		Status: http.StatusNotAcceptable, Slug: "not-acceptable",
		Detail: "messages can be had as application/json, application/xml or text/plain: name one of them in Accept",
	}
}

// problemOf is how an error that came after some items is told.
func problemOf(err error) (kind, detail string) {
	p := entrypoints.AsProblem(err)
	return entrypoints.ProblemPrefix + p.Slug, p.Detail
}

func (a ask) limitText() string { return strconv.Itoa(a.limit) }
