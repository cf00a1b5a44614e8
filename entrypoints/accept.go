package entrypoints

import "strings"

// Accept is a parsed Accept header (RFC 9110 §12.5.1). Parameters other than q are
// ignored, because what the gateway serves has no variants. Ranges that can't be read
// are left out: a client with a sloppy header is better served than refused.
type Accept []MediaRange

// MediaRange is one element of an Accept header, in lower case.
type MediaRange struct {
	Type, Subtype string
	// Quality is q in thousandths: 0 means never, 1000 is the default.
	Quality int
}

// How specifically a range names a media type.
const (
	MatchNone  = iota
	MatchAny   // */*
	MatchType  // text/*
	MatchNamed // text/plain
)

// ParseAccept reads all Accept headers of a request.
func ParseAccept(headers []string) Accept {
	var all Accept
	for _, h := range headers {
		for h != "" {
			var element string
			element, h = cutUnquoted(h, ',')
			if m, ok := parseRange(element); ok {
				all = append(all, m)
			}
		}
	}
	return all
}

// Match returns the quality with which a media type is accepted, and how specifically
// it was named: the most specific range decides. Without any range everything is accepted.
func (a Accept) Match(mediaType string) (quality, specificity int) {
	if len(a) == 0 {
		return 1000, MatchAny
	}
	typ, sub, _ := strings.Cut(mediaType, "/")
	for _, m := range a {
		s := m.match(typ, sub)
		if s > specificity || s == specificity && s > MatchNone && m.Quality > quality {
			quality, specificity = m.Quality, s
		}
	}
	return quality, specificity
}

func (m MediaRange) match(typ, sub string) int {
	switch {
	case m.Type == typ && m.Subtype == sub:
		return MatchNamed
	case m.Type == typ && m.Subtype == "*":
		return MatchType
	case m.Type == "*" && m.Subtype == "*":
		return MatchAny
	}
	return MatchNone
}

func parseRange(s string) (MediaRange, bool) {
	name, params := cutUnquoted(s, ';')
	typ, sub, ok := strings.Cut(strings.ToLower(strings.TrimSpace(name)), "/")
	if !ok || !isToken(typ) || !isToken(sub) || typ == "*" && sub != "*" {
		return MediaRange{}, false
	}
	m := MediaRange{Type: typ, Subtype: sub, Quality: 1000}
	for params != "" {
		var param string
		param, params = cutUnquoted(params, ';')
		key, value, _ := strings.Cut(param, "=")
		if strings.EqualFold(strings.TrimSpace(key), "q") {
			m.Quality, ok = parseQuality(strings.TrimSpace(value))
			return m, ok
		}
	}
	return m, true
}

// parseQuality reads 0, 1, and up to three decimals.
func parseQuality(s string) (int, bool) {
	if s == "" || len(s) > 5 || s[0] != '0' && s[0] != '1' || len(s) > 1 && s[1] != '.' {
		return 0, false
	}
	q, unit := int(s[0]-'0')*1000, 100
	for i := 2; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		q += int(s[i]-'0') * unit
		unit /= 10
	}
	return q, q <= 1000
}

// cutUnquoted cuts s at the first sep that stands in no quoted string.
func cutUnquoted(s string, sep byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case quoted && s[i] == '\\':
			i++
		case !quoted && s[i] == sep:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}
