package envelope

import (
	"encoding/hex"
	"math/rand/v2"
	"strings"
)

const (
	traceparentSize = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	maxTracestate   = 512
	maxTraceMembers = 32
)

// appendTrace appends a traceparent (W3C Trace Context): the trace of parent goes on with an
// id of its own for this request, and its flags. What is no valid parent begins a trace that
// nobody asked to be sampled. kept tells which of the two.
func appendTrace(dst []byte, parent string) (all []byte, kept bool) {
	trace, flags, kept := readTrace(parent)
	dst = append(dst, "00-"...)
	if kept {
		dst = append(dst, trace...)
	} else {
		dst = appendRandom(appendRandom(dst))
	}
	dst = appendRandom(append(dst, '-'))
	if kept {
		return append(append(dst, '-'), flags[:]...), true
	}
	return append(dst, "-00"...), false
}

// appendRandom appends 16 hexadecimal digits that are not all 0. They have to be different,
// and need not be hard to guess.
func appendRandom(dst []byte) []byte {
	n := rand.Uint64()
	for n == 0 {
		n = rand.Uint64()
	}
	var b [8]byte
	for i := range b {
		b[i] = byte(n >> (8 * i))
	}
	return hex.AppendEncode(dst, b[:])
}

// readTrace takes a traceparent apart. Of a version that is newer than ours, only the flag that
// ours knows is kept.
func readTrace(s string) (trace string, flags [2]byte, ok bool) {
	if len(s) < traceparentSize || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return "", flags, false
	}
	version, trace, parent := s[:2], s[3:35], s[36:52]
	switch {
	case !isHex(version) || !isHex(trace) || !isHex(parent) || !isHex(s[53:55]):
		return "", flags, false
	case version == "ff" || isZero(trace) || isZero(parent):
		return "", flags, false
	case len(s) > traceparentSize && (version == "00" || s[traceparentSize] != '-'):
		return "", flags, false
	}
	flags = [2]byte{s[53], s[54]}
	if version != "00" {
		sampled := strings.IndexByte("0123456789abcdef", s[54]) & 1
		flags = [2]byte{'0', '0' + byte(sampled)}
	}
	return trace, flags, true
}

// isHex wants lower case, as the specification does.
func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isZero(s string) bool { return strings.Trim(s, "0") == "" }

// isTracestate reports whether a value may go out as tracestate: a list of at most 32 members
// "key=value", none of them twice, and 512 characters.
func isTracestate(s string) bool {
	if len(s) > maxTracestate {
		return false
	}
	var seen [maxTraceMembers]string
	n := 0
	for member := range strings.SplitSeq(s, ",") {
		member = strings.Trim(member, " \t")
		if member == "" {
			continue // members may be empty
		}
		key, value, ok := strings.Cut(member, "=")
		if !ok || n == maxTraceMembers || !isTraceKey(key) || !isTraceValue(value) {
			return false
		}
		for _, k := range seen[:n] {
			if k == key {
				return false
			}
		}
		seen[n] = key
		n++
	}
	return n > 0
}

func isTraceKey(key string) bool {
	tenant, system, multi := strings.Cut(key, "@")
	if multi {
		return isTraceName(tenant, 241, true) && isTraceName(system, 14, false)
	}
	return isTraceName(key, 256, false)
}

func isTraceName(s string, size int, digitFirst bool) bool {
	if s == "" || len(s) > size {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter, digit := c >= 'a' && c <= 'z', c >= '0' && c <= '9'
		switch {
		case letter, digit && (i > 0 || digitFirst):
		case i > 0 && strings.IndexByte("_-*/", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// isTraceValue: the value can't end in a blank, because blanks around members were cut off.
func isTraceValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '=' || c == ',' {
			return false
		}
	}
	return s != "" && len(s) <= 256
}
