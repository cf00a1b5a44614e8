package brokers

import (
	"syscall"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/redis"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

// RedisServer is a Redis of one test's own.
type RedisServer struct{ *Server }

// Redis starts a private Redis, and stops it when the test ends. What it has acknowledged
// outlives Kill. It starts within milliseconds, so there is none that tests share.
func Redis(t testing.TB) *RedisServer {
	t.Helper()
	skipWithout(t, redisServer)
	if _, err := redis.FindProgram(); err != nil {
		t.Fatalf("%v; or set %s=1 to do without %s", err, redisServer.without, redisServer.name)
	}
	return &RedisServer{startServer(t, redis.Ports, func(dir string, port int) server.Node {
		return redis.Node{Dir: dir, FirstPort: port}
	})}
}

// Pause makes it answer nobody, while connections to it stand and new ones can be made, as
// with a machine that hangs.
func (r *RedisServer) Pause() { r.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (r *RedisServer) Resume() { r.signal(syscall.SIGCONT) }

func (r *RedisServer) signal(s syscall.Signal) {
	r.t.Helper()
	if r.running == nil {
		r.t.Fatal("this Redis does not run")
	}
	if err := r.running.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}
