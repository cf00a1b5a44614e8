package envelope

import (
	"errors"
	"fmt"
	"mime"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Bounds of what goes out beside the body.
const (
	// MaxHeaders is how many header lines a request has at most, MaxHeaderBytes how long they
	// are together.
	MaxHeaders     = 64
	MaxHeaderBytes = 16 << 10
	// MaxFixedHeaders is how many lines of these a subscriber may fix.
	MaxFixedHeaders = 20
)

// The headers that are ours, in canonical form.
const (
	idHeader        = "Webhook-Id"
	timestampHeader = "Webhook-Timestamp"
	signatureHeader = "Webhook-Signature"
	attemptHeader   = "Webhook-Attempt"
	tombstoneHeader = "Webhook-Tombstone"
	traceHeader     = "Traceparent"
	stateHeader     = "Tracestate"
	agentHeader     = "User-Agent"
	typeHeader      = "Content-Type"
	encodingHeader  = "Content-Encoding"
)

// connectionHeaders are about one connection or one exchange, and not about what it carries.
var connectionHeaders = []string{
	"Connection", "Content-Length", "Expect", "Host", "Http2-Settings", "Keep-Alive", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade",
}

// credentialHeaders speak for the subscriber, who configures them elsewhere.
var credentialHeaders = []string{"Authorization", "Cookie", "Cookie2", "Set-Cookie"}

// trustedHeaders are believed by many receivers, who take them for the word of their own
// proxy: a publisher must not speak in them.
var trustedHeaders = []string{
	"Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip",
	"X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url",
}

// whyReserved says why neither a subscriber nor a message may set a header, or "". The name is
// in canonical form.
func whyReserved(name string) string {
	switch {
	case slices.Contains(connectionHeaders, name):
		return "it belongs to the connection, and the gateway sets it itself"
	case strings.HasPrefix(name, "Proxy-"):
		return "it is for proxies: configure the proxy at the entrypoint"
	case slices.Contains(credentialHeaders, name):
		return "it carries credentials: use auth"
	case strings.HasPrefix(name, "Webhook-"):
		return "the gateway sets it: names that begin with webhook- are those of Standard Webhooks"
	case name == traceHeader || name == stateHeader:
		return "the gateway sets it, from the trace that the message belongs to"
	case name == agentHeader:
		return "the gateway sets it"
	case strings.HasPrefix(name, "Ce-"):
		return "names that begin with ce- are attributes of CloudEvents: use cloudevents"
	}
	return ""
}

// CheckHeader tells whether a subscriber may have a header added to all requests, and if not,
// why. A Content-Type is allowed, and goes before that of the message.
func CheckHeader(name, value string) error {
	if !httpguts.ValidHeaderFieldName(name) {
		return fmt.Errorf("%.64q is no name of an HTTP header: letters, digits and - are usual", name)
	}
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	if why := whyReserved(canonical); why != "" {
		return fmt.Errorf("header %.64s can't be fixed: %s", name, why)
	}
	switch {
	case canonical == encodingHeader:
		return errors.New("header Content-Encoding can't be fixed: only the message knows how it is encoded")
	case !httpguts.ValidHeaderFieldValue(value):
		return fmt.Errorf("the value of header %.64s contains control characters, which no HTTP header can carry", name)
	case len(name)+len(value) > MaxHeaderBytes/4:
		return fmt.Errorf("header %.64s is longer than %d bytes", name, MaxHeaderBytes/4)
	case canonical == typeHeader && !isMediaType(value):
		return fmt.Errorf("the value of header %.64s is no media type, like application/json", name)
	}
	return nil
}

// isMediaType reports whether a value is one that may stand in Content-Type.
func isMediaType(value string) bool {
	if !httpguts.ValidHeaderFieldValue(value) {
		return false
	}
	kind, _, err := mime.ParseMediaType(value)
	return err == nil && strings.Contains(kind, "/")
}

// isCoding reports whether a value is a list of tokens, as in Content-Encoding.
func isCoding(value string) bool {
	for coding := range strings.SplitSeq(value, ",") {
		if !httpguts.ValidHeaderFieldName(textproto.TrimString(coding)) { // names are tokens, too
			return false
		}
	}
	return true
}
