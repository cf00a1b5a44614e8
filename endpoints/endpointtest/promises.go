package endpointtest

import "github.com/caddy-message-api/caddy-message-api/message"

var (
	everyMode = []message.Mode{message.Broadcast, message.Assigned, message.Member, message.Shared}
	// tracked are the modes in which the broker keeps track of what was settled.
	tracked  = []message.Mode{message.Member, message.Shared}
	member   = []message.Mode{message.Member}
	assigned = []message.Mode{message.Assigned}
	// copies are the modes in which every stream gets everything.
	copies = []message.Mode{message.Broadcast, message.Assigned}
)

// promises is the contract. Each row names a promise, what must be there for it to be
// asked for, the ways to subscribe it is about, and the function that checks it.
var promises = []promise{
	// Publishing: publish.go.
	{"confirm", []need{confirming, consuming}, nil, stored},
	{"handed", []need{publishing, consuming}, nil, handed},
	{"batch", []need{publishing}, nil, batchResults},
	{"publish-order", []need{confirming, consuming}, nil, publishOrder},
	{"publish-concurrently", []need{confirming, consuming}, nil, publishConcurrently},
	{"publish-context", []need{publishing}, nil, publishContext},
	{"max-payload", []need{confirming, bounded}, nil, largestPayload},
	{"refused", []need{confirming, refusing}, nil, refused},
	{"unknown", []need{confirming, cutAfter}, nil, unknown},
	{"durable", []need{confirming, consuming, restarting}, nil, durable},

	// What a message holds arrives as it was: fidelity.go.
	{"payload-out", []need{confirming, consuming}, nil, payloadOut},
	{"payload-in", []need{producing}, everyMode, payloadIn},
	{"key-out", []need{confirming, consuming, keys}, nil, keyOut},
	{"key-in", []need{producing, keys}, everyMode, keyIn},
	{"headers-out", []need{confirming, consuming, headers}, nil, headersOut},
	{"headers-in", []need{producing, headers}, everyMode, headersIn},

	// Receiving: receive.go.
	{"begin", []need{feeding}, everyMode, begin},
	{"levels", []need{feeding}, everyMode, levels},
	{"order", []need{feeding}, everyMode, order},
	{"all-ready", []need{feeding}, everyMode, allReady},
	{"window", []need{feeding, manualSettle}, tracked, windowHolds},
	{"window-bytes", []need{feeding}, everyMode, windowBytes},
	{"slow-reader", []need{feeding}, everyMode, slowReader},
	{"receive-context", []need{feeding}, everyMode, receiveContext},
	{"close", []need{subscribing}, everyMode, closing},

	// Settling: settle.go.
	{"ack", []need{feeding, manualSettle}, tracked, ackIsFinal},
	{"ack-out-of-order", []need{feeding, manualSettle}, tracked, ackOutOfOrder},
	{"ack-ordered", []need{feeding, ordered}, tracked, ackOrdered},
	{"release", []need{feeding, manualSettle}, tracked, release},
	{"unsettled", []need{feeding, manualSettle}, tracked, unsettled},
	{"reject", []need{feeding, manualSettle}, tracked, reject},
	{"dead-letter", []need{producing, deadLetter, lettersHook}, tracked, deadLetters},
	{"settle-after-close", []need{feeding, manualSettle}, tracked, settleAfterClose},
	{"stale", []need{feeding, manualSettle, cutting}, tracked, stale},
	{"at-most-once", []need{feeding, fenced}, member, atMostOnce},
	{"stop", []need{feeding, manualSettle}, tracked, stopping},
	{"hold", []need{feeding, holding}, tracked, hold},

	// Positions: resume.go.
	{"resume", []need{feeding, positions}, assigned, resume},
	{"resume-unread", []need{feeding, positions}, assigned, resumeUnread},
	{"resume-absent", []need{feeding, positions}, assigned, resumeAbsent},
	{"resume-foreign", []need{feeding, positions}, assigned, resumeForeign},
	{"resume-expired", []need{producing, positions, truncating}, assigned, resumeExpired},
	{"resume-recreated", []need{producing, positions, recreating}, assigned, resumeRecreated},
	{"from", []need{producing, positions}, assigned, from},
	{"bookmark", []need{feeding, bookmarks}, assigned, bookmark},

	// Who gets what: share.go.
	{"copies", []need{feeding}, copies, eachGetsAll},
	{"members", []need{feeding, manualSettle}, tracked, membersShare},
	{"names", []need{feeding}, member, namesGetAll},

	// Brokers come and go: faults.go.
	{"reconnect", []need{feeding, cutting}, everyMode, reconnect},
	{"reconnect-publisher", []need{confirming, cutting}, nil, publisherReconnects},
	{"unreachable-publish", []need{confirming, unreachable}, nil, unreachablePublish},
	{"unreachable-subscribe", []need{unreachable}, everyMode, unreachableSubscribe},
	{"missing-publish", []need{confirming, missingHook}, nil, missingPublish},
	{"missing-subscribe", []need{missingHook}, everyMode, missingSubscribe},
	{"status", nil, nil, status},
}
