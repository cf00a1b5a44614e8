// Package rabbitmq provides the benchmarks with a RabbitMQ and with plain AMQP clients.
package rabbitmq
