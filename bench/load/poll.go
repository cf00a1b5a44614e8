//go:build linux

package load

import (
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// poller is one epoll.
type poller struct {
	fd     int
	events []unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &poller{fd: fd, events: make([]unix.EpollEvent, 512)}, nil
}

// add watches fd for reading; index comes back with its events.
func (p *poller) add(fd, index int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// wait returns what can be read, at most for d.
func (p *poller) wait(d time.Duration) ([]unix.EpollEvent, error) {
	n, err := unix.EpollWait(p.fd, p.events, int(max(d, 0)/time.Millisecond))
	if errors.Is(err, unix.EINTR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return p.events[:n], nil
}

func (p *poller) close() error { return unix.Close(p.fd) }

// dial connects to an IPv4 address on this machine. The socket blocks until unblock.
func dial(addr string) (int, error) {
	tcp, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return -1, fmt.Errorf("address %s: %w", addr, err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	to := &unix.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(tcp.IP.To4())}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		// Closing resets, so that thousands of connections leave no TIME_WAIT behind.
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		connect(fd, to),
	)
	if err != nil {
		return -1, errors.Join(fmt.Errorf("connecting to %s: %w", addr, err), unix.Close(fd))
	}
	return fd, nil
}

func connect(fd int, to unix.Sockaddr) error {
	for {
		err := unix.Connect(fd, to)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// unblock makes reads return at once. Writes of what is small never block here: the
// server reads, or is late by no more than the socket holds.
func unblock(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	return nil
}

// writeAll writes p. A full socket is waited for.
func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
			if _, err := unix.Poll(fds, 1000); err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("waiting to write: %w", err)
			}
		case err != nil:
			return fmt.Errorf("writing: %w", err)
		default:
			p = p[n:]
		}
	}
	return nil
}

// errClosed is what read returns when the server has closed the connection.
var errClosed = errors.New("the server closed the connection")

// read reads what is there; n is 0 when nothing is.
func read(fd int, buf []byte) (int, error) {
	n, err := unix.Read(fd, buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("reading: %w", err)
	case n == 0:
		return 0, errClosed
	}
	return n, nil
}
