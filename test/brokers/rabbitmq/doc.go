// Package rabbitmq runs one RabbitMQ as a process on loopback, and speaks to its
// management API. It knows nothing of tests; see the package above for that.
package rabbitmq
