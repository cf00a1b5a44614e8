package egress

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// blackHole is an address where nothing answers: the listener takes nobody, and its queue is full.
func blackHole(t *testing.T) string {
	t.Helper()
	fd := must(syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0))
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name := must(syscall.Getsockname(fd)).(*syscall.SockaddrInet4)
	addr := netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port)).String()
	for range 16 {
		conn, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Skip("the queue of a listener can't be filled here")
	return ""
}

func TestABlackHoleTakesNoLongerThanConnecting(t *testing.T) {
	addr := blackHole(t)
	opt := Options{Policy: Policy{AllowHTTP: true, Networks: networks("loopback")}, ConnectTimeout: 300 * time.Millisecond}
	begun := time.Now()
	_, err := post(newClient(t, opt), "http://"+addr)
	took := time.Since(begun)
	if outcome, text := Classify(err); outcome != entrypoints.TimedOut || text != "there was no connection in time" {
		t.Errorf("%s: %s", outcome, text)
	}
	if took < 250*time.Millisecond || took > 2*time.Second {
		t.Errorf("it took %v with a connect timeout of 300ms", took)
	}
}
