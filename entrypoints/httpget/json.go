package httpget

import (
	"strconv"

	"github.com/caddy-message-api/caddy-message-api/message"
)

var jsonFormat = &format{
	name: "http_get/json", mediaType: "application/json", contentType: "application/json",
	head: []byte(`{"items":[`), separated: true, item: appendJSONItem, tail: appendJSONTail,
}

func appendJSONItem(dst []byte, d *message.Delivery, parts parts) []byte {
	dst = append(dst, ',', '{')
	if d.ID != "" {
		dst = append(dst, `"id":`...)
		dst = message.AppendJSONString(dst, d.ID)
		dst = append(dst, ',')
	}
	dst = message.AppendJSONContent(dst, d.Payload)
	if parts.headers {
		dst = append(dst, `,"headers":`...)
		dst = message.AppendJSONHeaders(dst, d.Headers)
	}
	if parts.metadata {
		dst = append(dst, `,"metadata":`...)
		dst = message.AppendJSONMetadata(dst, d.Metadata)
	}
	return append(dst, '}')
}

func appendJSONTail(dst []byte, c *collected, cursor []byte, ask ask) []byte {
	dst = append(dst, ']')
	if len(c.gaps) > 0 {
		dst = append(dst, `,"gap":`...)
		dst = appendJSONGap(dst, &c.gaps[0])
	}
	if len(c.gaps) > 1 {
		dst = append(dst, `,"gaps":[`...)
		for i := range c.gaps {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSONGap(dst, &c.gaps[i])
		}
		dst = append(dst, ']')
	}
	if c.err != nil {
		kind, detail := problemOf(c.err)
		dst = append(dst, `,"error":{"type":`...)
		dst = message.AppendJSONString(dst, kind)
		dst = append(dst, `,"detail":`...)
		dst = message.AppendJSONString(dst, detail)
		dst = append(dst, '}')
	}
	dst = appendJSONPagination(dst, cursor, ask)
	return append(dst, '}', '\n')
}

func appendJSONGap(dst []byte, g *gap) []byte {
	dst = append(dst, `{"reason":`...)
	dst = message.AppendJSONString(dst, string(g.Reason))
	if g.Detail != "" {
		dst = append(dst, `,"detail":`...)
		dst = message.AppendJSONString(dst, g.Detail)
	}
	dst = append(dst, `,"before":`...)
	dst = strconv.AppendInt(dst, int64(g.Before), 10)
	return append(dst, '}')
}

func appendJSONPagination(dst, cursor []byte, ask ask) []byte {
	if len(cursor) == 0 && !ask.limited {
		return dst
	}
	dst = append(dst, `,"pagination":{`...)
	if len(cursor) > 0 {
		dst = append(dst, `"nextCursor":`...)
		dst = message.AppendJSONString(dst, cursor)
	}
	if ask.limited {
		if len(cursor) > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `"limit":`...)
		dst = message.AppendJSONString(dst, ask.limitText())
	}
	return append(dst, '}')
}
