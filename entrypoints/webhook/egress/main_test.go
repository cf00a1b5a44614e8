package egress

import (
	"bufio"
	"context"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// must is for what only a broken machine can make fail.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func networks(words ...string) []netip.Prefix { return must(ParseNetworks(words)) }

// trap is where nobody may get to: the same port at several addresses, and how often somebody connected.
type trap struct {
	port      string
	connected atomic.Int64
}

func newTrap(t *testing.T, addresses ...string) *trap {
	t.Helper()
	tr := &trap{port: "0"}
	for _, address := range addresses {
		l, err := net.Listen("tcp", net.JoinHostPort(address, tr.port))
		if err != nil {
			t.Skipf("this machine has no %s: %v", address, err)
		}
		if tr.port == "0" {
			tr.port = strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				tr.connected.Add(1)
				_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
				_ = conn.Close()
			}
		}()
		t.Cleanup(func() { _ = l.Close(); <-done })
	}
	return tr
}

// serve runs a server at a given address, as a program would.
func serve(t *testing.T, address string, h http.Handler) *httptest.Server {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("this machine has no %s: %v", address, err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func newClient(t *testing.T, opt Options) *http.Client {
	t.Helper()
	client := NewClient(NewTransport(opt), 5*time.Second)
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// post calls and reads the answer to its end.
func post(client *http.Client, url string) (status int, err error) {
	response, err := client.Post(url, "text/plain", http.NoBody)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

func caOf(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// nameServer answers questions for addresses with what a function says; n counts from 1 how often a name
// and type was asked for.
type nameServer struct {
	conn   net.PacketConn
	answer func(name string, v6 bool, n int) []string

	mu    sync.Mutex
	asked map[dnsmessage.Question]int
}

// resolver starts a name server, and asks nobody else.
func resolver(t *testing.T, answer func(name string, v6 bool, n int) []string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn, answer: answer, asked: map[dnsmessage.Question]int{}}
	done := make(chan struct{})
	go func() { defer close(done); s.run() }()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func (s *nameServer) run() {
	packet := make([]byte, 4096)
	for {
		n, from, err := s.conn.ReadFrom(packet)
		if err != nil {
			return
		}
		var query dnsmessage.Message
		if query.Unpack(packet[:n]) != nil || len(query.Questions) != 1 {
			continue
		}
		_, _ = s.conn.WriteTo(must(s.reply(query).Pack()), from)
	}
}

func (s *nameServer) reply(query dnsmessage.Message) *dnsmessage.Message {
	q := query.Questions[0]
	s.mu.Lock()
	s.asked[q]++
	n := s.asked[q]
	s.mu.Unlock()
	reply := &dnsmessage.Message{
		Header:    dnsmessage.Header{ID: query.ID, Response: true, Authoritative: true, RecursionAvailable: true},
		Questions: query.Questions,
	}
	v6 := q.Type == dnsmessage.TypeAAAA
	if !v6 && q.Type != dnsmessage.TypeA {
		return reply
	}
	for _, text := range s.answer(q.Name.String(), v6, n) {
		header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class} // TTL 0
		addr := netip.MustParseAddr(text)
		var body dnsmessage.ResourceBody = &dnsmessage.AResource{}
		if v6 {
			body = &dnsmessage.AAAAResource{AAAA: addr.As16()}
		} else {
			body = &dnsmessage.AResource{A: addr.As4()}
		}
		reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: header, Body: body})
	}
	return reply
}
