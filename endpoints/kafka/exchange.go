package kafka

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/segmentio/kafka-go/protocol"
)

// anyBroker sends an exchange to whichever broker answers.
const anyBroker int32 = -1

// exchange is one request and its answer on a connection of kafka-go's Transport. It
// takes the exchange into its own hands (protocol.RawExchanger) for two reasons: only
// so can be told whether a request that failed had been written, which decides between
// "refused" and "unknown", and only so can a fetch response be decoded without losing
// what kafka-go's decoder hides (the last offset of a batch that was compacted).
type exchange struct {
	broker int32
	key    protocol.ApiKey
	id     int32
	client string
	// build makes the request at the last moment, when the connection is there.
	build func(version int16) (protocol.Message, error)
	// read decodes the answer; nil reads it as kafka-go does.
	read func(r io.Reader, version int16, id int32) (protocol.Message, error)

	version int16
	phase   atomic.Int32
}

// The phases of an exchange. Whoever moves it out of waiting owns what follows: the
// connection begins to write, or the caller gives up and nothing will be written.
const (
	waiting int32 = iota
	writing
	written
	unwritten // the request did not leave this process in full
	abandoned
)

var errAbandoned = errors.New("the caller gave up before the request was sent")

// ApiKey implements protocol.Message.
func (x *exchange) ApiKey() protocol.ApiKey { return x.key } //nolint:revive // kafka-go's spelling

// Broker implements protocol.BrokerMessage. Routing is ours: kafka-go's view of the
// topics lags behind, and is switched off.
func (x *exchange) Broker(cluster protocol.Cluster) (protocol.Broker, error) {
	if x.broker == anyBroker {
		return protocol.Broker{ID: anyBroker}, nil
	}
	b, ok := cluster.Brokers[x.broker]
	if !ok {
		return b, fmt.Errorf("broker %d is not in the cluster at the moment", x.broker)
	}
	return b, nil
}

// Required implements protocol.RawExchanger.
func (x *exchange) Required(versions map[protocol.ApiKey]int16) bool {
	x.version = versions[x.key]
	return true
}

// RawExchange implements protocol.RawExchanger. It runs on the connection's goroutine.
func (x *exchange) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if !x.phase.CompareAndSwap(waiting, writing) {
		return nil, errAbandoned
	}
	req, err := x.build(x.version)
	if err == nil {
		if p, ok := req.(protocol.PreparedMessage); ok {
			p.Prepare(x.version)
		}
		err = protocol.WriteRequest(rw, x.version, x.id, x.client, req)
	}
	if err != nil {
		// A broker acts on whole frames only, and the frame is not whole.
		x.phase.Store(unwritten)
		return nil, err
	}
	x.phase.Store(written)
	if x.read != nil {
		res, err := x.read(rw, x.version, x.id)
		return &answer{res}, err
	}
	id, res, err := protocol.ReadResponse(rw, x.key, x.version)
	if err == nil && id != x.id {
		err = fmt.Errorf("the broker answered request %d, not %d", id, x.id)
	}
	return &answer{res}, err
}

// answer wraps what came back, because kafka-go has ideas of its own about some answers.
type answer struct{ protocol.Message }

// abandon stops an exchange that was not begun. It reports whether the request may have
// reached the broker.
func (x *exchange) abandon() (sent bool) {
	if x.phase.CompareAndSwap(waiting, abandoned) {
		return false
	}
	switch x.phase.Load() {
	case unwritten, abandoned:
		return false
	}
	return true
}

var (
	_ protocol.BrokerMessage = (*exchange)(nil)
	_ protocol.RawExchanger  = (*exchange)(nil)
)
