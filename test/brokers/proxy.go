package brokers

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

// Proxy is a TCP proxy whose network breaks on demand. It begins whole. Its methods may be
// called from any goroutine.
type Proxy struct {
	t        testing.TB
	addr     string
	upstream string
	wg       sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	listener net.Listener
	links    map[*link]struct{}
	// open is closed while data may pass.
	open chan struct{}
}

// link is one client's connection and its counterpart.
type link struct {
	client, server net.Conn
	cut            chan struct{}
	once           sync.Once
}

// NewProxy makes a proxy in front of upstream, on a port that stays its own.
func NewProxy(t testing.TB, upstream string) *Proxy {
	t.Helper()
	port, err := server.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	return NewProxyAt(t, server.Loopback(port), upstream)
}

// NewProxyAt makes a proxy that listens on addr.
func NewProxyAt(t testing.TB, addr, upstream string) *Proxy {
	t.Helper()
	p := &Proxy{t: t, addr: addr, upstream: upstream, links: make(map[*link]struct{}), open: make(chan struct{})}
	close(p.open)
	p.mu.Lock()
	err := p.listen()
	p.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.addr }

// Cut resets all connections. New ones are let through.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cutOff()
	}
}

// Mute lets connections stand, and new ones be made, but nothing pass either way: a
// network that swallows everything. What was sent meanwhile arrives after Restore.
func (p *Proxy) Mute() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.passing() {
		p.open = make(chan struct{})
	}
}

// Refuse cuts all connections and refuses new ones, as a host without server does.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	if p.listener != nil {
		_ = p.listener.Close() // the port is free either way
		p.listener = nil
	}
	p.mu.Unlock()
	p.Cut()
}

// Restore makes the network whole again.
func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.passing() {
		close(p.open)
	}
	if p.listener == nil && !p.closed {
		if err := p.listen(); err != nil {
			p.t.Errorf("restoring the proxy: %v", err)
		}
	}
}

// Connections is how many are open now.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

func (p *Proxy) passing() bool {
	select {
	case <-p.open:
		return true
	default:
		return false
	}
}

// listen needs the lock.
func (p *Proxy) listen() error {
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.listener = listener
	p.wg.Go(func() { p.accept(listener) })
	return nil
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // Refuse or close
		}
		p.wg.Go(func() { p.serve(client, listener) })
	}
}

func (p *Proxy) serve(client net.Conn, from net.Listener) {
	server, err := net.Dial("tcp", p.upstream)
	if err != nil {
		reset(client)
		return
	}
	l := &link{client: client, server: server, cut: make(chan struct{})}
	p.mu.Lock()
	if p.listener != from { // refused while it dialled
		p.mu.Unlock()
		l.cutOff()
		return
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(l, l.server, l.client) })
	pumps.Go(func() { p.pump(l, l.client, l.server) })
	pumps.Wait()
	l.finish()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// pump copies one way until that side is done.
func (p *Proxy) pump(l *link, to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, readErr := from.Read(buffer)
		if !p.mayPass(l) {
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				l.cutOff()
				return
			}
		}
		switch {
		case errors.Is(readErr, io.EOF):
			halfClose(to)
			return
		case readErr != nil:
			l.cutOff()
			return
		}
	}
}

// mayPass blocks while the proxy is mute. It is false when the link was cut.
func (p *Proxy) mayPass(l *link) bool {
	p.mu.Lock()
	open := p.open
	p.mu.Unlock()
	select {
	case <-l.cut:
		return false
	case <-open:
		return true
	}
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Refuse()
	p.wg.Wait()
}

// cutOff ends a link in the middle.
func (l *link) cutOff() {
	l.once.Do(func() {
		close(l.cut)
		reset(l.client)
		reset(l.server)
	})
}

// finish ends a link on which both sides have said all; the kernel still delivers it.
func (l *link) finish() {
	l.once.Do(func() {
		_ = l.client.Close()
		_ = l.server.Close()
	})
}

// reset closes at once with a TCP reset; what was under way is lost.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // only a connection that is gone already refuses
	}
	_ = conn.Close()
}

func halfClose(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		_ = conn.Close()
		return
	}
	if err := tcp.CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) {
		_ = conn.Close()
	}
}
