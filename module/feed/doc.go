// Package feed is how sessions read: a Log that one broker subscription fills and many
// sessions follow, and a stream of one's own. Both are entrypoints.Feed, so entrypoints
// cannot tell which they have.
//
// The way of a message through the log:
//
//	Stream.Receive → one goroutine per channel and process, the log's reader
//	→ chunks of at most 16 KiB, each encoded once per wire format in use
//	→ appended; what is over the log's size is dropped at the other end
//	→ sessions that had nothing to read are woken, at most once a millisecond
//	→ Poll hands each session the same bytes, all of its backlog up to a write's worth
//	→ a session that fell out of the log gets a gap, or ends, or reads on by itself
//
// A session that brings a position first reads by a stream of its own, until the log
// covers what it has read; it then follows the log, skipping what it already had.
//
// The package knows neither Caddy nor HTTP.
package feed
