package brokers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

const (
	// mosquittoTimeout bounds one run of mosquitto_pub, and how long mosquitto_sub may take
	// to subscribe.
	mosquittoTimeout = time.Minute
	// messageTimeout bounds how long a message may be on its way.
	messageTimeout = 20 * time.Second
)

// MosquittoPub publishes one message with mosquitto_pub: MQTT 5, at QoS 1 unless args say
// otherwise. args are mosquitto_pub's, as "-q" "2", "-r", "-D" "publish" "user-property"
// "name" "value", "--cafile" with a file, or "-u" and "-P". It returns when the broker has
// acknowledged.
func MosquittoPub(t testing.TB, addr, topic string, payload []byte, args ...string) {
	t.Helper()
	mosquittoPub(t, addr, bytes.NewReader(payload), append([]string{"-t", topic, "-q", "1", "-s"}, args...))
}

// MosquittoPubLines publishes each line of the input as a message, in one connection.
func MosquittoPubLines(t testing.TB, addr, topic string, input []byte, args ...string) {
	t.Helper()
	mosquittoPub(t, addr, bytes.NewReader(input), append([]string{"-t", topic, "-q", "1", "-l"}, args...))
}

func mosquittoPub(t testing.TB, addr string, input io.Reader, args []string) {
	t.Helper()
	if err := tryMosquittoPub(t, addr, input, args); err != nil {
		t.Fatal(err)
	}
}

func tryMosquittoPub(t testing.TB, addr string, input io.Reader, args []string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), mosquittoTimeout)
	defer cancel()
	program, args := mosquittoClient(t, "mosquitto_pub", addr, args)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = input
	out, err := cmd.CombinedOutput()
	// To mosquitto_pub a refusal by the broker is no more than a warning.
	if err == nil && !bytes.Contains(out, []byte(" failed: ")) {
		return nil
	}
	return fmt.Errorf("mosquitto_pub %s: %w\n%s", strings.Join(args, " "), errors.Join(err, ctx.Err(), errRefused), out)
}

var errRefused = errors.New("not everything was published")

// mosquittoClient finds one of the programs and adds to its arguments where the broker is.
func mosquittoClient(t testing.TB, name, addr string, args []string) (string, []string) {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		missing(t, mosquittoBroker, name+" is not installed (apt-get install mosquitto-clients)")
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatalf("the address of the MQTT broker: %v", err)
	}
	return program, append([]string{"-V", "mqttv5", "-h", host, "-p", port}, args...)
}

// MosquittoMessage is a message as mosquitto_sub has received it, by code that is not ours.
// In the texts there must be no tabs and line ends.
type MosquittoMessage struct {
	Topic    string
	Payload  []byte
	QoS      int
	Retained bool
	// The MQTT 5 properties. MessageExpiry is in seconds.
	ContentType, ResponseTopic, CorrelationData, MessageExpiry string
	// UserProperties are mosquitto_sub's own form: "name:value name:value".
	UserProperties string
}

// MosquittoSubscriber is a running mosquitto_sub.
type MosquittoSubscriber struct {
	t       testing.TB
	process *server.Process
	failed  chan error    // why there is nothing more to come
	news    chan struct{} // that received has grown

	mu       sync.Mutex
	received []MosquittoMessage
}

// MosquittoSub subscribes to a topic filter with mosquitto_sub, MQTT 5, QoS 1 unless args
// say otherwise. It returns when the broker has accepted the subscription, and ends with
// the test.
func MosquittoSub(t testing.TB, addr, filter string, args ...string) *MosquittoSubscriber {
	t.Helper()
	// -d tells of the subscription.
	program, args := mosquittoClient(t, "mosquitto_sub", addr,
		append([]string{"-d", "-t", filter, "-q", "1", "-F", mosquittoFormat}, args...))
	// Into a pipe it would keep back that it has subscribed, until there is more to write.
	cmd := exec.Command("stdbuf", append([]string{"-oL", program}, args...)...)
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, write
	p, err := server.StartProcess(cmd, func() { _ = write.Close() }) // never fails
	if err != nil {
		t.Fatal(err)
	}
	s := &MosquittoSubscriber{t: t, process: p, failed: make(chan error, 1), news: make(chan struct{}, 1)}
	t.Cleanup(s.Close)
	subscribed := make(chan struct{})
	go s.read(read, subscribed)
	select {
	case <-subscribed:
	case err := <-s.failed:
		t.Fatalf("mosquitto_sub %s: %v", strings.Join(args, " "), err)
	case <-time.After(mosquittoTimeout):
		t.Fatalf("mosquitto_sub %s: no subscription after %v", strings.Join(args, " "), mosquittoTimeout)
	}
	return s
}

// Next returns the next message, and ends the test when none comes.
func (s *MosquittoSubscriber) Next() MosquittoMessage {
	s.t.Helper()
	timeout := time.After(messageTimeout)
	for {
		if m, ok := s.take(); ok {
			return m
		}
		select {
		case <-s.news:
		case err := <-s.failed:
			s.t.Fatalf("mosquitto_sub has ended: %v", err)
		case <-timeout:
			s.t.Fatalf("mosquitto_sub received no message within %v", messageTimeout)
		}
	}
}

func (s *MosquittoSubscriber) take() (MosquittoMessage, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.received) == 0 {
		return MosquittoMessage{}, false
	}
	m := s.received[0]
	s.received = s.received[1:]
	return m, true
}

// put takes whatever comes: a session's messages may come before its subscription is
// confirmed.
func (s *MosquittoSubscriber) put(m MosquittoMessage) {
	s.mu.Lock()
	s.received = append(s.received, m)
	s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// Close ends mosquitto_sub, as kill -9 does.
func (s *MosquittoSubscriber) Close() {
	_ = s.process.Kill() // it may have ended
}

// mosquittoFormat is a line for each message: a mark that no line of -d begins with, the
// fields between tabs, and the payload in hexadecimal.
const mosquittoFormat = ">\t%t\t%q\t%r\t%C\t%R\t%D\t%E\t%P\t%x"

func (s *MosquittoSubscriber) read(from io.Reader, subscribed chan<- struct{}) {
	var said []string
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		line = strings.TrimSuffix(line, "\n")
		switch {
		case err != nil:
			s.failed <- fmt.Errorf("%w\n%s", err, strings.Join(said, "\n"))
			return
		case strings.HasPrefix(line, ">\t"):
			m, err := parseMosquitto(line)
			if err != nil {
				s.failed <- err
				return
			}
			s.put(m)
		case strings.HasPrefix(line, "Subscribed (") && subscribed != nil:
			close(subscribed)
			subscribed = nil
		case !strings.Contains(line, " PUB"):
			said = append(said, line)
		}
	}
}

func parseMosquitto(line string) (MosquittoMessage, error) {
	f := strings.Split(line, "\t")
	if len(f) != 10 {
		return MosquittoMessage{}, fmt.Errorf("mosquitto_sub's line %q has %d fields and not 10", line, len(f))
	}
	qos, err := strconv.Atoi(f[2])
	if err != nil {
		return MosquittoMessage{}, err
	}
	payload, err := hex.DecodeString(f[9])
	if err != nil {
		return MosquittoMessage{}, err
	}
	return MosquittoMessage{
		Topic: f[1], QoS: qos, Retained: f[3] == "1", ContentType: f[4], ResponseTopic: f[5],
		CorrelationData: f[6], MessageExpiry: f[7], UserProperties: f[8], Payload: payload,
	}, nil
}
