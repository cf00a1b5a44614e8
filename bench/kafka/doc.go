// Package kafka is the Kafka side of the benchmarks: the broker, and the plain kafka-go
// clients that the gateway is compared with.
package kafka
