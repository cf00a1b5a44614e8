package kafka

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// peerClosed asks the kernel, without reading anything, whether the other side has
// closed or reset the connection.
func peerClosed(raw syscall.RawConn) (closed bool) {
	err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		closed = err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
	return closed || err != nil // an error means that we have closed it ourselves
}
