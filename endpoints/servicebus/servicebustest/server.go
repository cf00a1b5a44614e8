package servicebustest

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Server is a namespace.
type Server struct {
	options Options
	addr    string
	muted   atomic.Bool
	wg      sync.WaitGroup

	mu       sync.Mutex // guards everything below, and all connections, links and entities
	listener net.Listener
	closed   bool
	conns    map[*conn]struct{}
	entities map[string]*entity // by path in lower case
	fault    func(Op, string) *Fault
	origin   uint64 // the second half of lock tokens
	scratch  []byte
}

// Listen starts a namespace on address ("127.0.0.1:0" for any port).
func Listen(address string, options Options) (*Server, error) {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	s := &Server{options: options, conns: map[*conn]struct{}{}, entities: map[string]*entity{}, origin: binary.BigEndian.Uint64(seed[:])}
	if err := s.listen(address); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) listen(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("servicebustest: %w", err)
	}
	s.addr, s.listener = listener.Addr().String(), listener
	s.wg.Go(func() { s.serve(listener) })
	return nil
}

func (s *Server) serve(listener net.Listener) {
	for {
		raw, err := listener.Accept()
		if err != nil {
			return // closed
		}
		s.mu.Lock()
		if s.closed || s.listener != listener {
			s.mu.Unlock()
			_ = raw.Close()
			return
		}
		c := newConn(s, &wire{Conn: raw, muted: &s.muted})
		s.conns[c] = struct{}{}
		s.wg.Go(c.run)
		s.mu.Unlock()
	}
}

// Addr is where the namespace listens, host:port.
func (s *Server) Addr() string { return s.addr }

// ConnectionString is what a client connects with; over plain TCP it ends in UseDevelopmentEmulator=true.
func (s *Server) ConnectionString() string {
	text := "Endpoint=sb://" + s.addr + ";SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=c2VjcmV0"
	if s.options.TLS == nil {
		text += ";UseDevelopmentEmulator=true"
	}
	return text
}

// WebSocketURL is where AMQP over WebSocket is served, on the same port.
func (s *Server) WebSocketURL() string {
	scheme := "ws"
	if s.options.TLS != nil {
		scheme = "wss"
	}
	return scheme + "://" + s.addr + "/$servicebus/websocket/"
}

// Close ends everything; no goroutine is left.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		s.shut()
		for _, e := range s.entities {
			e.end()
		}
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// shut closes the listener and cuts all connections.
func (s *Server) shut() int {
	if s.listener != nil {
		_ = s.listener.Close()
		s.listener = nil
	}
	return s.cutAll()
}

func (s *Server) cutAll() int {
	n := len(s.conns)
	for c := range s.conns {
		c.cut()
	}
	return n
}

// Connections is how many connections are open.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Drop cuts every connection without a word and says how many there were.
func (s *Server) Drop() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cutAll()
}

// Pause closes the listener and cuts every connection, until Resume.
func (s *Server) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut()
}

// Resume listens at the same address again.
func (s *Server) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errors.New("servicebustest: the namespace is closed")
	case s.listener != nil:
		return nil
	}
	return s.listen(s.addr)
}

// Mute makes the namespace a black hole, for current and new connections: it takes bytes and answers nothing. When
// it ends, the connections that lost bytes are cut.
func (s *Server) Mute(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.muted.Store(on)
	if on {
		return
	}
	for c := range s.conns {
		if c.raw.lost.Load() {
			c.cut()
		}
	}
}

// OnFault sets the function that is asked before each operation; it answers nil where nothing goes wrong. Nil ends
// all faults. The function must neither block nor call the server.
func (s *Server) OnFault(f func(op Op, entity string) *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// locked runs f under the mutex, unless the server is closed.
func (s *Server) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		f()
	}
}

func (s *Server) now() time.Time { return time.Now() }

// wire is the connection to the client, which a mute server makes a black hole.
type wire struct {
	net.Conn
	muted *atomic.Bool
	lost  atomic.Bool // bytes went nowhere
}

func (w *wire) Read(p []byte) (int, error) {
	for {
		n, err := w.Conn.Read(p)
		if !w.muted.Load() {
			return n, err
		}
		if n > 0 {
			w.lost.Store(true)
		}
		if err != nil {
			return 0, err
		}
	}
}

func (w *wire) Write(p []byte) (int, error) {
	if w.muted.Load() {
		w.lost.Store(true)
		return len(p), nil
	}
	return w.Conn.Write(p)
}
