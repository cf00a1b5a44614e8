package rabbitmq

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
)

// producer publishes to any exchange, over one connection.
type producer struct {
	link      *link.Link[*connection]
	exchange  exchangeSpec
	vet       vetting
	mode      uint8
	mandatory bool
	// lost is told of messages that nobody waited for and that were not stored.
	lost func(exchange string, err error)

	ids string
	seq atomic.Uint64
}

func newProducer(cfg *connConfig, p *Producer) *producer {
	losses := link.NewLosses(cfg.logger, "messages that nobody waited for are not known to be stored")
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return &producer{
		link: cfg.link("publish"), vet: vetting{cfg: cfg},
		exchange: p.Exchange.spec(), mode: deliveryMode(on(p.Persistent)), mandatory: on(p.Mandatory),
		lost: func(exchange string, err error) { losses.Note(1, err, zap.String("exchange", exchange)) },
		ids:  hex.EncodeToString(random[:]) + "-",
	}
}

// nextID makes an id for a message that brings none.
func (p *producer) nextID() string {
	return p.ids + strconv.FormatUint(p.seq.Add(1), 36)
}

// ensure sees to it that an exchange is there. To publish to one that is not would end the
// channel, and with it the messages of others.
func (p *producer) ensure(ctx context.Context, conn *connection, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	declare := func(ch *amqp.Channel) error { return p.exchange.ensure(ch, name) }
	if p.exchange.declare {
		if err := p.vet.try(ctx, conn.address, declare); err != nil {
			return clash("exchange "+name, err)
		}
	}
	if err := onChannel(ctx, conn, declare); err != nil {
		return clash("exchange "+name, err)
	}
	conn.exchanges.learn(name)
	return nil
}
