// Package receivers holds receivers of webhooks that know nothing of the gateway: they verify
// signatures with the official libraries of Standard Webhooks for Go, Python and JavaScript.
//
// The libraries for Python and JavaScript are installed by scripts/receivers.sh, into the
// user's cache; after that, nothing here needs a network. MESSAGE_API_NO_PYTHON=1 and
// MESSAGE_API_NO_NODE=1 have tests do without one.
//
// These two libraries take bodies for UTF-8 text, and can't verify others by themselves
// (Received.Helped).
package receivers
