// Package message is the vocabulary of what flows through the gateway: messages,
// the deliveries that owe a settlement, the streams they come by, the publishers
// they leave by, and the positions at which reading can continue.
//
// It imports neither Caddy nor any broker's client library, so that an endpoint
// can be written, tested and reused without either.
package message
