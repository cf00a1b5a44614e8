package smftest

import (
	"bufio"
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is a client that writes its frames by hand.
type peer struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

const handLogin = `038c00010000000c00000025 | 81 00 00000019 05 0000000a 7065657200 06 00000009 64656600`

func dial(t *testing.T, s *Server) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return &peer{t, conn, bufio.NewReader(conn)}
}

func (p *peer) send(hex string) {
	p.t.Helper()
	if _, err := p.conn.Write(captured(p.t, hex)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) read() frame {
	p.t.Helper()
	f, err := readFrame(p.r)
	if err != nil {
		p.t.Fatal(err)
	}
	return f
}

// response is the status that a frame carries.
func response(f frame) int {
	for rest := f.params; ; {
		one, after, err := nextParam(rest)
		if err != nil || one.raw == nil {
			return 0
		}
		if !one.light && one.kind == paramResponse {
			return int(number(one.value[:4]))
		}
		rest = after
	}
}

func start(t *testing.T, options Options) *Server {
	t.Helper()
	s, err := Listen("127.0.0.1:0", options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func login(t *testing.T, s *Server) *peer {
	t.Helper()
	p := dial(t, s)
	p.send(handLogin)
	if code := response(p.read()); code != 200 {
		t.Fatalf("login: %d", code)
	}
	return p
}

func TestByHand(t *testing.T) {
	s := start(t, Options{VPN: "def"})
	s.Queue("q", Queue{Topics: []string{"orders/>"}})
	p := login(t, s)
	p.send(capturedKeepAlive)
	if f := p.read(); f.proto != protoKeepAlive {
		t.Errorf("protocol %02x", f.proto)
	}
	p.send(capturedSubscribe)
	if f := p.read(); response(f) != 200 {
		t.Errorf("subscribe: %d", response(f))
	}
	p.send(capturedDirect) // nobody is subscribed
	p.send(capturedString)
	if f := p.read(); f.proto != protoMessage || f.flags&flagGuaranteed != 0 {
		t.Errorf("protocol %02x, flags %02x", f.proto, f.flags)
	}
	p.send(capturedOpen)
	p.read()
	p.send(capturedPublish)
	p.send(capturedPublish) // again, as if its acknowledgement had been lost
	for range 2 {
		if m, err := parseControl(p.read().body); err != nil || m.kind != ctlAck || m.lastAcked != 1 {
			t.Errorf("acknowledgement %+v, %v", m, err)
		}
	}
	if c := s.Counts("q"); c.Ready != 1 {
		t.Errorf("counts: %+v", c)
	}
	p.send(capturedCredit) // of a flow that is not there
	p.send(capturedUnbind)
	if f := p.read(); response(f) != 200 {
		t.Errorf("unbind: %d", response(f))
	}
	if wrong := s.Malformed(); len(wrong) > 0 {
		t.Error(wrong)
	}
}

// Nonsense costs the client its connection, and the broker nothing.
func TestNonsense(t *testing.T) {
	s := start(t, Options{VPN: "def"})
	for name, hex := range map[string]string{
		"message of no flow": capturedPublish,
		"login that lies":    `038c00010000000c00000012 | 8100000000ff`,
		"unknown protocol":   `038100010000000c0000000c`,
		"control cut short":  `030900010000000c0000000e | 0200`,
		"no topic":           `038d00ff0000000c0000000c`,
		"huge":               `038d00ffffffffffffffffff`,
	} {
		p := login(t, s)
		if name == "login that lies" {
			p = dial(t, s)
		}
		p.send(hex)
		if _, err := readFrame(p.r); err == nil {
			t.Errorf("%s: answered", name)
		}
	}
	before := dial(t, s)
	before.send(capturedSubscribe)
	if _, err := readFrame(before.r); err == nil {
		t.Error("answered before login")
	}
	if wrong := s.Malformed(); len(wrong) == 0 {
		t.Error("nothing was noted")
	}
}

// A range of ids that is as wide as can be costs no more than what there is.
func TestWideRange(t *testing.T) {
	s := start(t, Options{VPN: "def"})
	s.Queue("q1", Queue{})
	if err := s.Put("q1", Message{}, Message{}, Message{}); err != nil {
		t.Fatal(err)
	}
	p := login(t, s)
	p.send(capturedBind)
	bound, err := parseControl(p.read().body)
	if err != nil || bound.flow == 0 {
		t.Fatalf("%+v, %v", bound, err)
	}
	args := append(append32(nil, argFlow, bound.flow), argWindow, 3, 2)
	p.conn.Write(appendAssured(nil, 2, ctlAck, nil, status{}, args))
	p.read()
	p.read()
	if c := s.Counts("q1"); c.Ready != 1 || c.Unacked != 2 {
		t.Errorf("counts, with a window of 2: %+v", c)
	}
	wide := append64(append32(nil, argFlow, bound.flow), argLastAcked, 2)
	wide = append(wide, argWindow, 3, 2)
	wide = append(wide, argOutcome, 18, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255)
	p.conn.Write(appendAssured(nil, 2, ctlAck, nil, status{}, wide))
	p.read()
	if c := s.Counts("q1"); c.Acked != 2 || c.Unacked != 1 {
		t.Errorf("counts: %+v", c)
	}
}

// A client that does not read loses direct messages and is told; others lose none.
func TestSlowReader(t *testing.T) {
	s := start(t, Options{VPN: "def"})
	p := login(t, s)
	p.send(capturedSubscribe)
	p.read()
	big := Message{Payload: make([]byte, 1<<20)}
	const n = 60
	for range n {
		if err := s.Publish("a/b/c", false, big); err != nil {
			t.Fatal(err)
		}
	}
	got := 0
	for wait := 10 * time.Second; ; wait = 200 * time.Millisecond {
		p.conn.SetReadDeadline(time.Now().Add(wait))
		if _, err := readFrame(p.r); err != nil {
			break
		}
		got++
	}
	if got == n || got < 30 {
		t.Errorf("%d of %d came", got, n)
	}
	p = login(t, s) // takes the place of the other
	p.send(capturedSubscribe)
	p.read()
	if s.Clients() != 1 {
		t.Errorf("%d clients", s.Clients())
	}
}

func TestDiscardIsTold(t *testing.T) {
	client, broker := net.Pipe()
	defer client.Close()
	defer broker.Close()
	c := newConn(&Server{}, broker)
	small, err := (&Message{Topic: "a"}).packet()
	if err != nil {
		t.Fatal(err)
	}
	c.out = make([]byte, maxBacklog+1)
	c.direct(small, Fault{})
	c.out = nil
	c.direct(small, Fault{})
	c.direct(small, Fault{})
	n := len(c.out) / 2
	if c.out[0]&flagDiscarded == 0 || c.out[n]&flagDiscarded != 0 {
		t.Errorf("flags %02x, %02x", c.out[0], c.out[n])
	}
}

func TestTakeInTime(t *testing.T) {
	s := start(t, Options{})
	s.Queue("q", Queue{Topics: []string{"a"}})
	record := s.Record("a")
	if err := s.Publish("a", true, Message{Payload: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if m, err := s.Take(ctx, "q", 2); len(m) != 1 || err == nil {
		t.Errorf("%v, %v", m, err)
	}
	if m, err := record.Take(ctx, 2); len(m) != 0 || err == nil || record.Len() != 1 {
		t.Errorf("%v, %v", m, err)
	}
	if _, err := s.Take(context.Background(), "nowhere", 1); err == nil {
		t.Error("took from no queue")
	}
	if err := s.Put("nowhere", Message{}); err == nil {
		t.Error("put into no queue")
	}
	record.Close()
	if err := s.Publish("a", true, Message{}); err != nil || record.Len() != 1 {
		t.Errorf("%d recorded after the end, %v", record.Len(), err)
	}
}
