package receiver

import (
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/webhooks/ledger"
)

// fault is what the receiver does to a request.
type fault int

const (
	taken     fault = iota // 2xx
	refused                // 400, for poison
	failed                 // 500, for what is stubborn
	err5xx                 // 500, 502, 503, 504
	hold                   // no answer until the client leaves
	reset                  // the connection is reset
	slow                   // 2xx, drop by drop
	cutStatus              // the connection ends in the midst of the status line, or of the headers
	cutBody                // 2xx, and the connection ends in the midst of the body
	throttled              // 429 with Retry-After
	faults
)

var faultNames = [faults]string{
	"2xx", "400 for poison", "500 for stubborn", "5xx", "no answer", "reset", "slow 2xx", "head cut", "2xx with body cut", "429",
}

func (f fault) String() string { return faultNames[f] }

// Rates are the shares of attempts, from 0 to 1, at which the receiver fails in each way.
type Rates struct {
	ServerError, Hold, Reset, Slow, CutStatus, CutBody, Throttle float64
}

// Times multiplies all rates.
func (r Rates) Times(f float64) Rates {
	return Rates{r.ServerError * f, r.Hold * f, r.Reset * f, r.Slow * f, r.CutStatus * f, r.CutBody * f, r.Throttle * f}
}

// Everything is a receiver that fails at a fifteenth of its requests, in all ways.
var Everything = Rates{ServerError: 0.03, Hold: 0.002, Reset: 0.01, Slow: 0.005, CutStatus: 0.01, CutBody: 0.01, Throttle: 0.001}

// decide says what happens to a message that came so often before: the same in every run with
// the same seed, whatever the order in which things come.
func (r *Rates) decide(seed uint64, m ledger.Message, before int) fault {
	switch m.Fate {
	case ledger.Poison:
		return refused
	case ledger.Stubborn:
		return failed
	}
	dice := rand.New(rand.NewPCG(seed, uint64(m.N)<<16|uint64(before&0xffff))).Float64() //nolint:gosec // it is to be foreseeable
	for _, one := range [...]struct {
		f    fault
		rate float64
	}{
		{err5xx, r.ServerError},
		{hold, r.Hold},
		{reset, r.Reset},
		{slow, r.Slow},
		{cutStatus, r.CutStatus},
		{cutBody, r.CutBody},
		{throttled, r.Throttle},
	} {
		if dice -= one.rate; dice < 0 {
			return one.f
		}
	}
	return taken
}

// answer does it. That a message is taken is noted before the first byte of a 2xx goes out, for
// nobody knows what of it arrives. With the whole status line of a 2xx it is taken, whatever
// becomes of the body.
func (r *Receiver) answer(w http.ResponseWriter, req *http.Request, m ledger.Message, f fault) {
	switch f {
	case taken:
		r.opt.Ledger.Taken(m)
		w.WriteHeader([...]int{http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent}[m.N%4])
	case refused:
		http.Error(w, "this message is poison", http.StatusBadRequest)
	case failed:
		http.Error(w, "not today", http.StatusInternalServerError)
	case err5xx:
		w.WriteHeader([...]int{500, 502, 503, 504}[m.N%4])
	case hold:
		r.hold(w, req)
	case slow:
		r.opt.Ledger.Taken(m)
		drip(w)
	case throttled:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	case reset:
		cut(w, "", true)
	case cutStatus:
		cut(w, [...]string{"HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Len"}[m.N%2], false)
	case cutBody:
		r.opt.Ledger.Taken(m)
		cut(w, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\nthis is but a part", false)
	}
}

// hold answers nothing until the client leaves.
func (r *Receiver) hold(w http.ResponseWriter, req *http.Request) {
	timer := time.NewTimer(r.opt.Hold)
	defer timer.Stop()
	select {
	case <-req.Context().Done():
	case <-r.stop:
	case <-timer.C:
		r.opt.Ledger.Note("a request was held for %s, and the gateway still waits", r.opt.Hold)
	}
	cut(w, "", true)
}

// drip sends a response in pieces.
func drip(w http.ResponseWriter) {
	c := http.NewResponseController(w)
	for range 5 {
		_, _ = io.WriteString(w, "drop ") // the client may have gone
		_ = c.Flush()
		time.Sleep(5 * time.Millisecond)
	}
}

// cut ends the connection behind some bytes, or resets it.
func cut(w http.ResponseWriter, bytes string, byReset bool) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // it is gone already
	}
	defer conn.Close()
	if tcp, ok := conn.(*net.TCPConn); ok && byReset {
		_ = tcp.SetLinger(0)
	}
	_, _ = io.WriteString(conn, bytes)
}
