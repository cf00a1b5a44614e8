// Package solace provides the benchmarks with a peer that speaks Solace's protocol, and with
// plain clients of Solace's library. It is empty without cgo, which that library needs.
package solace
