// Package mock is an endpoint without a broker. It makes messages by a clock, or, with
// loopback, hands what is published to whoever is subscribed. It opens no connection, so
// it is always up, and nothing that it knows outlives the process.
//
// # Generated messages
//
// Every message has the configured content, headers and metadata, an id that counts up,
// and the time of its tick. Each subscription has a clock and ids of its own: the first
// message, with id 0, is due one interval after the subscription began, and message n is
// due at begin + (n+1) × interval on a fixed grid, so that lateness never adds up. A message
// never comes early. Broadcast subscriptions (qos none) are the exception: they
// share one clock that starts with the first of them, and all see the same ids.
//
// The generated messages are a history that exists as far as the clock has come:
//
//   - A cursor says which id is next. A subscription with a cursor continues with that
//     id, at the usual pace; with a cursor of the shared clock it gets what it missed at
//     once and stays on that clock. Another configuration, API or name of the endpoint
//     makes its cursors foreign, which the client is told as a gap; so does a shared
//     clock that was started anew.
//   - Members of one name (clients with an identity, where qos tracks them) divide one
//     sequence of ids: every tick of each member's clock takes the next id. What a member
//     has not settled when it leaves, or releases, comes again with its attempt counted,
//     and is never lost while the endpoint lives. What was acknowledged never comes again.
//     Rejected messages are dropped. A later member continues where the name stands.
//   - A name also has a bookmark: a subscription by position that carries a name and brings
//     no cursor begins where the name stands.
//   - Names are kept in memory, the 10,000 that were used last. One that was forgotten
//     begins with id 0 again.
//
// A slow reader loses nothing and costs nothing: messages are made when they are read.
// Everything that has become due meanwhile comes at once, in batches of about 64 KiB within
// the subscription's window.
//
// What is published is confirmed, counted and dropped.
//
// # Loopback
//
// With loopback the endpoint is a channel within the process: what is published comes to
// every subscription that exists at that moment, with key, headers and payload as they were,
// their own id or one that counts up, the time of publishing and the configured metadata. All
// subscriptions see the same order. There is no history, so there are no cursors, no
// names and no settlement: each subscription is a broadcast of what comes from now on. A
// publisher never waits: where a subscription's window is full, the oldest messages are
// dropped, and the reader is told by a gap (slow_client) that says how many. The clock
// stands still unless message_interval is written; its messages then come in a lane of
// their own, with ids tick-0, tick-1 and so on.
package mock
