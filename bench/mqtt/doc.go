// Package mqtt provides the benchmarks with an MQTT broker and with plain MQTT clients.
package mqtt
