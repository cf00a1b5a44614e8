// Package smftest is a message broker for tests that speaks the Solace Message Format
// (SMF) over TCP or TLS, truly enough for the official client library to log in,
// subscribe, publish with acknowledgements, bind to queues, settle and reconnect.
//
// It proves that the endpoint drives the client library rightly, and that it copes with
// whatever a broker may answer. It is not a Solace broker: where the real one does
// otherwise, no test against this one notices. What it does is drawn from the public
// facts about the format and from the bytes on its own sockets. It runs in the process
// of the test, is written in Go alone, and is no product: do not serve with it.
//
// What it has: login by password and by client certificate, keep-alives, direct messages
// with wildcards and shared subscriptions, publisher flows that acknowledge, refuse and
// resume, durable and temporary queues with exclusive and competing flows, credit,
// outcomes, redelivery and a dead message queue, and the making and deleting of queues.
// What it has not: compression, downgrade from TLS to plain text, selectors, browsers,
// replay, transactions, topic endpoints, partitioned queues, priorities within a queue.
//
// All of a [Server]'s methods are safe for concurrent use.
package smftest
