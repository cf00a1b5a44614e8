// Package bare is what the gateway's fan-out is compared with: a Caddy handler that does
// nothing but fan out. Each subscriber is served by its handler's goroutine; a message is
// encoded once, the same bytes go to everybody, and a subscriber's whole backlog goes out
// in one flush. It has no limits, history, plans, identity, heartbeat, deadlines or metrics.
package bare
