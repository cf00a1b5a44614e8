// Package module is the gateway itself: the Caddy app and handlers, the API units and
// the runtime they live in, sessions, and what happens to all of them on reload and exit.
// It knows entrypoints, endpoints and plans only by their contracts.
//
// A request's way:
//
//	Handler.ServeHTTP → the API unit of the context path → identity → CORS → plans
//	→ the entrypoint that matches best → a session → Entrypoint.Serve
//
// Publishing goes on by session.Publish to the endpoint that was negotiated when the
// configuration was loaded; reading goes on by session.Subscribe to a shared log or to
// a stream of the session's own (package feed).
package module
