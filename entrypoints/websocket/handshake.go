package websocket

import (
	"crypto/sha1" //nolint:gosec // RFC 6455 §4.2.2 prescribes it; nothing is secured by it
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// offer is what a client's handshake asks for.
type offer struct {
	key      string
	protocol bool
	cursor   string
	from     string
}

// Match claims every attempt to open a WebSocket, broken ones and those over HTTP/2 and
// HTTP/3 too: whoever asks for one is told why there is none, and does not get a page.
func (*Entrypoint) Match(r *http.Request) int {
	switch {
	case r.ProtoMajor < 2 && r.Method == http.MethodGet && entrypoints.IsWebSocket(r),
		extendedConnect(r),
		r.ProtoMajor >= 2 && r.Method == http.MethodGet && r.Header.Get("Sec-Websocket-Version") != "":
		return matchUpgrade
	}
	return 0
}

// extendedConnect recognises the bootstrap of RFC 8441 (HTTP/2: Go keeps :protocol as a
// header) and RFC 9220 (HTTP/3: quic-go keeps it as the protocol).
func extendedConnect(r *http.Request) bool {
	return r.ProtoMajor >= 2 && r.Method == http.MethodConnect &&
		(r.Proto == "websocket" || slices.Equal(r.Header[":protocol"], []string{"websocket"}))
}

// hasToken says whether a header that is a list holds the token.
func hasToken(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// accept checks everything that can be answered by an HTTP status.
func (e *Entrypoint) accept(w http.ResponseWriter, r *http.Request) (offer, error) {
	if err := checkVersion(w, r); err != nil {
		return offer{}, err
	}
	if err := checkHandshake(r); err != nil {
		return offer{}, err
	}
	o := offer{key: r.Header.Get("Sec-Websocket-Key"), protocol: offersProtocol(r.Header)}
	if !o.protocol && e.needsProtocol() {
		return offer{}, &entrypoints.Problem{
			Status: http.StatusBadRequest, Slug: "subprotocol-required",
			Detail: fmt.Sprintf("qos %s works in the sub-protocol only: send Sec-WebSocket-Protocol: %s", e.QoS, Protocol),
		}
	}
	err := e.readQuery(r, &o)
	return o, err
}

func checkVersion(w http.ResponseWriter, r *http.Request) error {
	switch {
	case r.ProtoMajor >= 2:
		return &entrypoints.Problem{
			Status: http.StatusNotImplemented, Slug: "websocket-version",
			Detail: fmt.Sprintf("WebSocket runs on HTTP/1.1 here, and this request came by HTTP/%d: open the connection "+
				"with HTTP/1.1 (in TLS: ALPN http/1.1)", r.ProtoMajor),
		}
	case !r.ProtoAtLeast(1, 1):
		return upgradeRequired(w, "WebSocket needs HTTP/1.1, and this request came by "+r.Proto)
	case r.Header.Get("Sec-Websocket-Version") != "13":
		return upgradeRequired(w, fmt.Sprintf("Sec-WebSocket-Version must be 13, not %q", r.Header.Get("Sec-Websocket-Version")))
	}
	return nil
}

func upgradeRequired(w http.ResponseWriter, detail string) error {
	h := w.Header()
	h.Set("Upgrade", "websocket")
	h.Set("Connection", "Upgrade")
	h.Set("Sec-Websocket-Version", "13")
	return &entrypoints.Problem{Status: http.StatusUpgradeRequired, Slug: "websocket-version", Detail: detail}
}

func checkHandshake(r *http.Request) error {
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-Websocket-Key"))
	switch {
	case !hasToken(r.Header, "Connection", "upgrade"):
		return badHandshake("the Connection header has no Upgrade: a proxy on the way may have dropped it")
	case len(r.Header.Values("Sec-Websocket-Key")) > 1:
		return badHandshake("Sec-WebSocket-Key stands more than once")
	case err != nil || len(key) != 16:
		return badHandshake("Sec-WebSocket-Key must be 16 bytes in base64")
	case r.ContentLength != 0:
		return badHandshake("a WebSocket handshake has no body")
	}
	return nil
}

func badHandshake(detail string) error {
	return &entrypoints.Problem{Status: http.StatusBadRequest, Slug: "websocket-handshake", Detail: detail}
}

// offersProtocol says whether the client offers our sub-protocol. One that offers only
// others gets raw frames and no sub-protocol, which by RFC 6455 it may refuse.
func offersProtocol(h http.Header) bool {
	for _, line := range h.Values("Sec-Websocket-Protocol") {
		for part := range strings.SplitSeq(line, ",") {
			if strings.TrimSpace(part) == Protocol {
				return true
			}
		}
	}
	return false
}

// readQuery reads ?cursor= and ?from=. Empty ones count as absent: a client that has no
// cursor yet may well send its variable all the same.
func (e *Entrypoint) readQuery(r *http.Request, o *offer) error {
	query, err := entrypoints.ParseQuery(r)
	if err != nil {
		return err
	}
	if o.cursor, _, err = query.Get("cursor"); err != nil {
		return err
	}
	if o.from, _, err = query.Get("from"); err != nil {
		return err
	}
	if !e.subscriber && (o.cursor != "" || o.from != "") {
		return &entrypoints.Problem{
			Status: http.StatusBadRequest, Slug: "bad-query",
			Detail: "cursor and from are about reading, and this WebSocket only publishes: leave them out",
		}
	}
	return nil
}

// acceptKey is the proof that the handshake was understood (RFC 6455 §4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // see the import
	return base64.StdEncoding.EncodeToString(sum[:])
}
