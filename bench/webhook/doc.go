// Package webhook is what one writes in an afternoon to bring a broker's messages to an HTTP
// receiver: a client library, goroutines, an http.Client and an HMAC. And the receiver.
package webhook
