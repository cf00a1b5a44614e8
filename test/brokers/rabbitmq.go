package brokers

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/rabbitmq"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

const (
	// managementTimeout bounds one call of the management API, statisticsTimeout how long
	// its statistics may lag behind the truth.
	managementTimeout = 20 * time.Second
	statisticsTimeout = 20 * time.Second
	statisticsPoll    = 50 * time.Millisecond
)

// RabbitMQBroker is a RabbitMQ, shared or private. Its methods end the test when they can't
// do what they are asked for.
type RabbitMQBroker struct {
	listeners rabbitmq.Listeners
}

// Addr is where it takes connections without TLS, as host:port.
func (b RabbitMQBroker) Addr() string { return b.listeners.Plain }

// TLSAddr is where it takes TLS. Who has a client certificate may log in by EXTERNAL.
func (b RabbitMQBroker) TLSAddr() string { return b.listeners.TLS }

// Certificates are what clients of TLSAddr need.
func (b RabbitMQBroker) Certificates() server.Certificates { return b.listeners.Certificates }

// User and Password may do everything, at the management API too.
func (RabbitMQBroker) User() string { return rabbitmq.Admin }

// Password is User's.
func (RabbitMQBroker) Password() string { return rabbitmq.AdminPassword }

// API is the management API's URL, without path.
func (b RabbitMQBroker) API() string { return b.listeners.API }

// Management is the management API for what the methods here don't do.
func (b RabbitMQBroker) Management() rabbitmq.Management {
	return rabbitmq.Management{URL: b.API(), User: b.User(), Password: b.Password()}
}

// Vhost makes a virtual host with a name that nobody else has, in which User, server.User
// and no one else may do everything, and deletes it when the test ends. What is connected
// to it then is cut off.
func (b RabbitMQBroker) Vhost(t testing.TB) string {
	t.Helper()
	name := UniqueName(t)
	b.call(t, "making the virtual host "+name, func(ctx context.Context, m rabbitmq.Management) error {
		return m.CreateVirtualHost(ctx, name, rabbitmq.Admin, server.User)
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), managementTimeout)
		defer cancel()
		// The broker may have been stopped by then, and its data go with it.
		if err := b.Management().DeleteVirtualHost(ctx, name); err != nil {
			t.Logf("the virtual host %s stays: %v", name, err)
		}
	})
	return name
}

// Queue is what the management API says of a queue now, which may lag behind. A queue that
// it does not know has no Name.
func (b RabbitMQBroker) Queue(t testing.TB, vhost, name string) rabbitmq.QueueState {
	t.Helper()
	var state rabbitmq.QueueState
	b.call(t, "asking for the queue "+name, func(ctx context.Context, m rabbitmq.Management) error {
		var err error
		state, err = m.Queue(ctx, vhost, name)
		if rabbitmq.IsNotFound(err) {
			return nil
		}
		return err
	})
	return state
}

// AwaitQueue asks for a queue until it is as wanted, and ends the test when that takes
// longer than statistics may lag behind. A queue that is not known has no Name.
func (b RabbitMQBroker) AwaitQueue(t testing.TB, vhost, name, what string, is func(rabbitmq.QueueState) bool) rabbitmq.QueueState {
	t.Helper()
	for deadline := time.Now().Add(statisticsTimeout); ; {
		state := b.Queue(t, vhost, name)
		if is(state) {
			return state
		}
		if time.Now().After(deadline) {
			t.Fatalf("the queue %s in %s is not as awaited (%s) after %v: %+v", name, vhost, what, statisticsTimeout, state)
		}
		time.Sleep(statisticsPoll)
	}
}

// CloseConnections closes all connections to a virtual host, as an operator would, and
// returns how many. It waits until there is one that the management API knows of, which
// is told of a connection when it has been open for a moment.
func (b RabbitMQBroker) CloseConnections(t testing.TB, vhost string) int {
	t.Helper()
	for deadline := time.Now().Add(statisticsTimeout); ; {
		closed := 0
		b.call(t, "closing the connections of "+vhost, func(ctx context.Context, m rabbitmq.Management) error {
			var err error
			closed, err = m.CloseConnections(ctx, vhost)
			return err
		})
		if closed > 0 {
			return closed
		}
		if time.Now().After(deadline) {
			t.Fatalf("there was no connection to close in %s within %v", vhost, statisticsTimeout)
		}
		time.Sleep(statisticsPoll)
	}
}

func (b RabbitMQBroker) call(t testing.TB, what string, do func(context.Context, rabbitmq.Management) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), managementTimeout)
	defer cancel()
	if err := do(ctx, b.Management()); err != nil {
		t.Fatalf("%s: %v", what, errors.Join(err, ctx.Err()))
	}
}

// RabbitMQServer is a RabbitMQ of one test's own, with an Erlang port mapper of its own. A
// start takes about six seconds.
type RabbitMQServer struct {
	*Server
	RabbitMQBroker
	node rabbitmq.Node
}

// RabbitMQ starts a private RabbitMQ, and stops it when the test ends.
func RabbitMQ(t testing.TB) *RabbitMQServer {
	t.Helper()
	skipWithout(t, rabbitMQ)
	if _, err := rabbitmq.FindProgram(); err != nil {
		missing(t, rabbitMQ, err.Error())
	}
	r := &RabbitMQServer{}
	r.Server = startServer(t, rabbitmq.Ports, func(dir string, firstPort int) server.Node {
		r.node = rabbitmq.Node{Dir: dir, FirstPort: firstPort}
		r.listeners = r.node.Listeners()
		return r.node
	})
	return r
}

// AwaitRegistered waits until a quorum queue is on disk. RabbitMQ 3.10 says that it is
// declared, and confirms its messages, up to three seconds before; whoever kills it in
// between has a queue without a leader afterwards, for ever. See the buffer of names.dets in
// its Raft library.
func (r *RabbitMQServer) AwaitRegistered(vhost, queue string) {
	r.t.Helper()
	for deadline := time.Now().Add(statisticsTimeout); ; {
		names, err := r.node.Registered()
		if bytes.Contains(names, []byte(vhost+"_"+queue)) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("the quorum queue %s in %s is not on disk after %v: %v", queue, vhost, statisticsTimeout, err)
		}
		time.Sleep(statisticsPoll)
	}
}

// Addr is where it takes connections without TLS, as host:port.
func (r *RabbitMQServer) Addr() string { return r.RabbitMQBroker.Addr() }

// SharedRabbitMQ returns the RabbitMQ that all packages share: the one that
// scripts/rabbitmq.sh keeps. Tests use a virtual host of their own there (Vhost), and do no
// harm to it; those that must start their own with RabbitMQ.
func SharedRabbitMQ(t testing.TB) RabbitMQBroker {
	t.Helper()
	skipWithout(t, rabbitMQ)
	return RabbitMQBroker{listeners: rabbitmq.Listeners{
		Plain: fromEnvironment(t, rabbitMQ, "RABBITMQ_ADDR"),
		TLS:   os.Getenv("RABBITMQ_TLS_ADDR"),
		// A URL that was copied from a browser's address ends in a slash.
		API:          strings.TrimSuffix(fromEnvironment(t, rabbitMQ, "RABBITMQ_API"), "/"),
		Certificates: server.CertificatesIn(os.Getenv("RABBITMQ_CERTS")),
	}}
}
