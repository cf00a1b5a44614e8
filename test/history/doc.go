// Package history counts: what was confirmed to a publisher is compared with what readers of
// every level got, while connections break, links swallow everything, and gateway and broker
// are killed.
package history
