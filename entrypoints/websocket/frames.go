package websocket

import (
	"encoding/binary"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// appendGap appends the frame that tells of a gap.
func appendGap(dst []byte, gap *message.Gap) []byte {
	dst, at := beginText(dst)
	dst = appendMember(dst, `{"type":"gap","reason":`, string(gap.Reason))
	dst = appendMember(dst, `,"detail":`, gap.Detail)
	return endText(append(dst, '}'), at)
}

// appendResult appends the frame that tells what became of a publish.
func appendResult(dst []byte, ref string, r *message.Result) []byte {
	switch {
	case r.Status.OK():
		dst, at := beginText(dst)
		dst = appendRef(append(dst, `{"type":"published"`...), ref)
		dst = appendMember(dst, `,"status":`, r.Status.String())
		if r.ID != "" {
			dst = appendMember(dst, `,"id":`, r.ID)
		}
		dst = append(dst, `,"metadata":`...)
		dst = message.AppendJSONMetadata(dst, r.Metadata)
		return endText(append(dst, '}'), at)
	case r.Status == message.Refused:
		return appendFailure(dst, "refused", ref, problemOf(r))
	default:
		return appendFailure(dst, "unknown", ref, problemOf(r))
	}
}

// problemOf is the problem of a result that is not good. A publisher that gives no cause
// for an unknown outcome has still said what it is.
func problemOf(r *message.Result) *entrypoints.Problem {
	if r.Err == nil && r.Status == message.Unknown {
		return entrypoints.AsProblem(message.Errorf(message.OutcomeUnknown, "the broker's answer did not arrive"))
	}
	return entrypoints.AsProblem(r.Err)
}

// appendFailure appends the frame that tells that a publish was refused, or that nobody
// knows what became of it. The problem is as HTTP clients get it.
func appendFailure(dst []byte, kind, ref string, p *entrypoints.Problem) []byte {
	dst, at := beginText(dst)
	dst = appendRef(appendMember(dst, `{"type":`, kind), ref)
	dst = appendMember(dst, `,"problem":{"type":`, entrypoints.ProblemPrefix+p.Slug)
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(p.Status), 10)
	dst = appendMember(dst, `,"detail":`, p.Detail)
	dst = appendRetry(dst, p.RetryAfter)
	return endText(append(dst, '}', '}'), at)
}

// appendError appends the frame that says that a frame of the client had no effect.
func appendError(dst []byte, ref, detail string) []byte {
	dst, at := beginText(dst)
	dst = appendRef(append(dst, `{"type":"error"`...), ref)
	dst = appendMember(dst, `,"detail":`, detail)
	return endText(append(dst, '}'), at)
}

// appendGoaway appends the frame that announces the end.
func appendGoaway(dst []byte, end *entrypoints.End) []byte {
	dst, at := beginText(dst)
	dst = appendMember(dst, `{"type":"goaway","reason":`, string(end.Reason))
	dst = appendMember(dst, `,"detail":`, end.Detail)
	dst = append(dst, `,"reconnect":`...)
	dst = strconv.AppendBool(dst, end.Reason.Reconnect())
	dst = appendRetry(dst, end.Retry)
	return endText(append(dst, '}'), at)
}

// appendClose appends a close frame. Code 1005 stands for none and is never sent.
func appendClose(dst []byte, code int, reason string) []byte {
	if code == noCloseCode {
		return append(dst, closeFrame, 0)
	}
	reason = cut(reason, maxControl-2)
	dst = append(dst, closeFrame, byte(2+len(reason)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}

// cut shortens s to at most n bytes of valid UTF-8.
func cut(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func appendMember(dst []byte, prefix, value string) []byte {
	return message.AppendJSONString(append(dst, prefix...), value)
}

func appendRef(dst []byte, ref string) []byte {
	if ref == "" {
		return dst
	}
	return appendMember(dst, `,"ref":`, ref)
}

func appendRetry(dst []byte, retry time.Duration) []byte {
	if retry <= 0 {
		return dst
	}
	return strconv.AppendInt(append(dst, `,"retry_ms":`...), retry.Milliseconds(), 10)
}
