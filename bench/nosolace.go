//go:build linux && !cgo

package main

import "github.com/caddy-message-api/caddy-message-api/bench/child"

// Solace's client library needs cgo.
func solaceBenchmarks() []*benchmark { return nil }

func solaceOps(map[string]child.Op) {}
