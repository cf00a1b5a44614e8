package server

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Servers that are restarted must find their port free again. The kernel gives ports of
// its ephemeral range (32768 to 60999 on Linux) to any outgoing connection, so theirs are
// taken below it.
const (
	lowestPort  = 20000
	highestPort = 32000
)

// FreePorts finds count consecutive ports on which nobody listens. Somebody else can take
// them before they are used: the caller must be ready to try again.
func FreePorts(count int) (int, error) {
	for range 100 {
		first := lowestPort + rand.IntN(highestPort-lowestPort-count)
		if allFree(first, count) {
			return first, nil
		}
	}
	return 0, fmt.Errorf("no %d consecutive free ports between %d and %d", count, lowestPort, highestPort)
}

func allFree(first, count int) bool {
	for port := first; port < first+count; port++ {
		l, err := net.Listen("tcp", Loopback(port))
		if err != nil {
			return false
		}
		if l.Close() != nil {
			return false
		}
	}
	return true
}

// Loopback is the address of a port on 127.0.0.1.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
