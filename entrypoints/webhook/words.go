package webhook

import (
	"slices"
	"strings"
)

// The words of the options, in the order in which errors list them.
const (
	orderKey, orderLane, orderNone = "key", "lane", "none"

	exponential, linear, noRetry = "exponential", "linear", "none"

	deadLetter, stop, skip = "dead_letter", "stop", "skip"

	authBasic, authBearer, authOAuth2 = "basic", "bearer", "oauth2"

	clientAuthHeader, clientAuthBody = "header", "body"
)

var (
	orders             = []string{orderKey, orderLane, orderNone}
	strategies         = []string{exponential, linear, noRetry}
	clientErrorActions = []string{deadLetter, stop, skip}
	exhaustedActions   = []string{deadLetter, stop}
	authTypes          = []string{authBasic, authBearer, authOAuth2}
)

func listed(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

func known(word string, words []string) bool { return slices.Contains(words, word) }
