// Package envelope makes the HTTP request that carries a message to the client of a
// subscription: signed as Standard Webhooks 1.0.0 says, with the headers that may go out, and
// as a CloudEvent where that is wished. It knows neither brokers nor Caddy, and sends nothing.
package envelope
