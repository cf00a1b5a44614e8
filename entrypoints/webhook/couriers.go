package webhook

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/egress"
)

const (
	// idleConnection is how long a connection is kept that nobody uses.
	idleConnection = 90 * time.Second
	// maxIdleCouriers is how many couriers are kept that nobody uses: dead letters and tests
	// of the same subscription follow one another, and share connections and tokens.
	maxIdleCouriers = 16
)

// couriers are those of all subscriptions of an entrypoint, one for each configuration.
type couriers struct {
	of     *Entrypoint
	shared *http.Transport

	mu   sync.Mutex
	made map[[sha256.Size]byte]*lent
	idle []*lent // the longest idle first
}

// lent is a courier with those who use it.
type lent struct {
	*courier
	key  [sha256.Size]byte
	uses int
}

func newCouriers(e *Entrypoint) *couriers {
	return &couriers{of: e, shared: e.transport(e.tls), made: make(map[[sha256.Size]byte]*lent)}
}

func (e *Entrypoint) transport(cfg *tls.Config) *http.Transport {
	return egress.NewTransport(egress.Options{
		Policy: e.policy, ConnectTimeout: e.dialTimeout, IdleTimeout: idleConnection,
		Proxy: e.proxy, TLS: cfg, Connections: e.connections,
	})
}

// ownTransport has TLS options of the subscription in the place of the entrypoint's.
func (c *courier) ownTransport(e *Entrypoint, pool *x509.CertPool, serverName string) *http.Transport {
	cfg := e.tls.Clone() // of nil, nil
	if cfg == nil {
		cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if pool != nil {
		cfg.RootCAs, cfg.InsecureSkipVerify = pool, false
	}
	if serverName != "" {
		cfg.ServerName = serverName
	}
	t := e.transport(cfg)
	c.own = append(c.own, t)
	return t
}

// lend returns the courier for a configuration, which must be given back.
func (p *couriers) lend(api string, raw json.RawMessage) (*lent, error) {
	key := sha256.Sum256(append([]byte(api+"\x00"), raw...))
	p.mu.Lock()
	defer p.mu.Unlock()
	if l, ok := p.made[key]; ok {
		if l.uses == 0 {
			p.forgetIdle(l)
		}
		l.uses++
		return l, nil
	}
	tree, err := object(raw)
	if err != nil {
		return nil, err
	}
	c := new(Consumer)
	if flaws := decode(tree, c); len(flaws) > 0 {
		return nil, flaws
	}
	made, err := p.of.newCourier(api, c)
	if err != nil {
		return nil, err
	}
	l := &lent{courier: made, key: key, uses: 1}
	p.made[key] = l
	return l, nil
}

func (p *couriers) giveBack(l *lent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.uses--; l.uses > 0 {
		return
	}
	p.idle = append(p.idle, l)
	if len(p.idle) > maxIdleCouriers {
		p.drop(p.idle[0])
	}
}

func (p *couriers) forgetIdle(l *lent) {
	for i := range p.idle {
		if p.idle[i] == l {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return
		}
	}
}

func (p *couriers) drop(l *lent) {
	p.forgetIdle(l)
	delete(p.made, l.key)
	l.close()
}

// close is for the end of the entrypoint, when nobody uses a courier any more.
func (p *couriers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.made {
		l.close()
	}
	p.shared.CloseIdleConnections()
}
