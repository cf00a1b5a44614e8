// Package server has what all brokers that the tests start have in common: ports of their
// own, certificates, and how one waits for their start and ends them.
package server
