package module

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// identityNames are the header names of the three ids.
type identityNames struct {
	request, transaction, client string
}

func newIdentityNames(prefix string) (identityNames, error) {
	if !httpguts.ValidHeaderFieldName(prefix + "Request-Id") {
		return identityNames{}, fmt.Errorf("headers_prefix %q does not make a valid header name", prefix)
	}
	return identityNames{
		request:     textproto.CanonicalMIMEHeaderKey(prefix + "Request-Id"),
		transaction: textproto.CanonicalMIMEHeaderKey(prefix + "Transaction-Id"),
		client:      textproto.CanonicalMIMEHeaderKey(prefix + "Client-Identifier"),
	}, nil
}

// is reports whether a message header would be taken for one of the ids.
func (n *identityNames) is(name string) bool {
	return strings.EqualFold(name, n.request) || strings.EqualFold(name, n.transaction) || strings.EqualFold(name, n.client)
}

// maxID bounds the ids that clients bring.
const maxID = 128

// ids reads or makes the request's own two ids. A header wins over a query parameter of
// the same name.
func (n *identityNames) ids(r *http.Request) (request, transaction string, err error) {
	var query url.Values
	if n.mayBeIn(r.URL.RawQuery) {
		query = r.URL.Query()
	}
	if request, err = oneID(r.Header, query, n.request); err != nil {
		return "", "", err
	}
	transaction, err = oneID(r.Header, query, n.transaction)
	return request, transaction, err
}

// mayBeIn says whether a query can hold one of the two ids, which few do, so that the
// others need not be taken apart. What is escaped has to be.
func (n *identityNames) mayBeIn(rawQuery string) bool {
	if rawQuery == "" {
		return false
	}
	if strings.Contains(rawQuery, "%") {
		return true
	}
	lower := strings.ToLower(rawQuery)
	return strings.Contains(lower, strings.ToLower(n.request)) || strings.Contains(lower, strings.ToLower(n.transaction))
}

func oneID(h http.Header, query url.Values, name string) (string, error) {
	values := h[name]
	if len(values) == 0 {
		for key, v := range query {
			if strings.EqualFold(key, name) {
				values = append(values, v...)
			}
		}
	}
	if len(values) == 0 {
		return newID(), nil
	}
	return checkID(name, values)
}

// newID makes a random (version 4) UUID. It tells exchanges apart and guards nothing, so
// that the runtime's generator will do, which needs no system call.
func newID() string {
	var id uuid.UUID
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// provided reads the client's own part of the client identifier: only from the header, so
// that a link can't choose it.
func (n *identityNames) provided(h http.Header) (string, error) {
	values := h[n.client]
	if len(values) == 0 {
		return "", nil
	}
	return checkID(n.client, values)
}

func checkID(name string, values []string) (string, error) {
	if len(values) > 1 {
		return "", message.Errorf(message.BadInput, "%s stands %d times in the request", name, len(values))
	}
	id := values[0]
	if len(id) == 0 || len(id) > maxID {
		return "", message.Errorf(message.BadInput, "%s has %d characters: use 1 to %d", name, len(id), maxID)
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return "", message.Errorf(message.BadInput, "%s holds a character that is not visible ASCII", name)
		}
	}
	return id, nil
}

// inferClient is the identifier of a client of whom only the address is known.
func inferClient(clientIP string) string {
	sum := sha256.Sum256([]byte(clientIP))
	return hex.EncodeToString(sum[:])
}

// setRequestHeaders puts the request's own ids on the response, so that errors have them too.
func (n *identityNames) setRequestHeaders(h http.Header, id *entrypoints.Identity) {
	both := [...]string{id.RequestID, id.TransactionID}
	h[n.request], h[n.transaction] = both[:1:1], both[1:]
}

// setClientHeader puts the client identifier on the response.
func (n *identityNames) setClientHeader(h http.Header, id *entrypoints.Identity) {
	h[n.client] = []string{id.Client}
}

const (
	// maxIdentities bounds the identities per API and plan for which a keyless plan has
	// something kept at the broker.
	maxIdentities = 1000
	// identityLife is how long an identity counts after its last use.
	identityLife = 24 * time.Hour
)

// identities bounds what is made at brokers on behalf of clients who only say who they are.
type identities struct {
	mu   sync.Mutex
	seen map[string]map[string]time.Time // plan, identifier, last use
}

func newIdentities() *identities { return &identities{seen: make(map[string]map[string]time.Time)} }

// name returns the broker-side name of a session's identity: "<api>.<identifier>".
func (i *identities) name(s *session) (string, error) {
	if s.principal.Subscription == "" {
		if err := i.admit(s.principal.Plan, s.identity.Client, time.Now()); err != nil {
			return "", err
		}
	}
	return s.unit.def.ID + "." + brokerSafe(s.identity.Client), nil
}

func (i *identities) admit(plan, client string, now time.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	known := i.seen[plan]
	if known == nil {
		known = make(map[string]time.Time)
		i.seen[plan] = known
	}
	if _, ok := known[client]; !ok && len(known) >= maxIdentities {
		for id, last := range known {
			if now.Sub(last) > identityLife {
				delete(known, id)
			}
		}
		if len(known) >= maxIdentities {
			return &message.Error{Kind: message.Busy, RetryAfter: time.Hour, Detail: fmt.Sprintf(
				"%d different client identifiers used this plan within a day, which is its bound", maxIdentities)}
		}
	}
	known[client] = now
	return nil
}

// brokerSafe brings an identifier into the characters that every broker allows in names.
// What had to be changed or cut gets a hash of the whole, and so does what looks as if it
// had one, so that two never meet.
func brokerSafe(id string) string {
	const maxLen, keep = 150, 100
	safe := true
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		safe = false
		return '_'
	}, id)
	if safe && len(id) <= maxLen && !hashedName.MatchString(id) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return clean[:min(len(clean), keep)] + "-" + hex.EncodeToString(sum[:8])
}

var hashedName = regexp.MustCompile(`-[0-9a-f]{16}$`)
