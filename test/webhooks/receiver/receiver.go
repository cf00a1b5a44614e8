// Package receiver is a webhook receiver that fails in every way there is, by a seeded rate, and
// keeps the books of what it was sent and has taken.
package receiver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/webhooks/ledger"
)

// Options are what a receiver does.
type Options struct {
	Ledger *ledger.Ledger
	// Secret signs what comes: whsec_ and base64.
	Secret string
	// Rates are how often it fails, Seed decides when.
	Rates Rates
	Seed  uint64
	// Hold is for how long a response is withheld at most when it is to time out, if the
	// client does not leave before.
	Hold time.Duration
	// Kept is a message header, in its canonical form, that must come as an HTTP header, with
	// a value that Value tells.
	Kept  string
	Value func(ledger.Message) string
}

// Receiver is one that listens on the loopback interface.
type Receiver struct {
	opt    Options
	key    []byte
	server *http.Server
	addr   string
	stop   chan struct{}
	served chan error

	counts   [faults]atomic.Int64
	running  atomic.Int64
	most     atomic.Int64
	mu       sync.Mutex
	revision string
	revised  int
}

// RevisionHeader is a header of the subscription's own, by which the receiver sees which
// configuration is in force.
const RevisionHeader = "X-Revision"

// Start begins to listen.
func Start(opt Options) (*Receiver, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(opt.Secret, "whsec_"))
	if err != nil {
		return nil, fmt.Errorf("the secret: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Receiver{opt: opt, key: key, addr: l.Addr().String(), stop: make(chan struct{}), served: make(chan error, 1)}
	r.server = &http.Server{
		Handler: r, ReadHeaderTimeout: time.Minute,
		ErrorLog: log.New(io.Discard, "", 0), // of connections that it cuts itself
	}
	go func() { r.served <- r.server.Serve(l) }()
	return r, nil
}

// URL is the callback.
func (r *Receiver) URL() string { return "http://" + r.addr + "/hook" }

// Close cuts all connections.
func (r *Receiver) Close() error {
	close(r.stop)
	err := r.server.Close()
	if served := <-r.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// MostAtOnce is how many requests it had at once, at most.
func (r *Receiver) MostAtOnce() int { return int(r.most.Load()) }

// Revision is that of the newest request.
func (r *Receiver) Revision() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.revision
}

// Revised is how often the revision has changed from one request to the next.
func (r *Receiver) Revised() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.revised
}

// Failures tells how often it did what.
func (r *Receiver) Failures() string {
	var words []string
	for f := range faults {
		if n := r.counts[f].Load(); n > 0 {
			words = append(words, fmt.Sprintf("%s %d", f, n))
		}
	}
	return strings.Join(words, ", ")
}

// ServeHTTP is one attempt of the gateway.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	now := r.running.Add(1)
	defer r.running.Add(-1)
	for most := r.most.Load(); now > most && !r.most.CompareAndSwap(most, now); most = r.most.Load() {
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the gateway was killed in the midst of it
	}
	if req.Method != http.MethodPost {
		r.opt.Ledger.Note("a %s came", req.Method)
	}
	r.verify(req, body)
	r.revise(req.Header.Get(RevisionHeader))
	attempt, err := strconv.Atoi(req.Header.Get("Webhook-Attempt"))
	if err != nil {
		r.opt.Ledger.Note("webhook-attempt: %v", err)
	}
	m, before, ok := r.opt.Ledger.Tried(ledger.Request{Payload: body, ID: req.Header.Get("Webhook-Id"), Attempt: attempt})
	if !ok {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if r.opt.Kept != "" {
		if got, want := req.Header.Get(r.opt.Kept), r.opt.Value(m); got != want {
			r.opt.Ledger.Note("message %d: the header %s is %q and not %q", m.N, r.opt.Kept, got, want)
		}
	}
	f := r.opt.Rates.decide(r.opt.Seed, m, before)
	r.counts[f].Add(1)
	r.answer(w, req, m, f)
}

// verify checks the signature as the Standard Webhooks specification describes it.
func (r *Receiver) verify(req *http.Request, body []byte) {
	id, at := req.Header.Get("Webhook-Id"), req.Header.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil || time.Since(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		r.opt.Ledger.Note("webhook-timestamp is %q", at)
	}
	mac := hmac.New(sha256.New, r.key)
	_, _ = mac.Write([]byte(id + "." + at + "."))
	_, _ = mac.Write(body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for one := range strings.FieldsSeq(req.Header.Get("Webhook-Signature")) {
		if hmac.Equal([]byte(one), []byte(want)) {
			return
		}
	}
	r.opt.Ledger.Note("%s: the signature %q is not right", id, req.Header.Get("Webhook-Signature"))
}

func (r *Receiver) revise(revision string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if revision != r.revision {
		r.revision = revision
		r.revised++
	}
}
