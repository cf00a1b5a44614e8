package brokers

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// amqpTimeout bounds one run of an amqp-tools program.
const amqpTimeout = time.Minute

// AMQPPublish publishes one message with amqp-publish, which is librabbitmq and not ours. An
// empty exchange is the default one. args are amqp-publish's, as "-H" "name: value", "-C"
// with a content type, or "-p" for persistent.
func AMQPPublish(t testing.TB, b RabbitMQBroker, vhost, exchange, key, body string, args ...string) {
	t.Helper()
	amqpTool(t, b, vhost, "amqp-publish", append([]string{"-e", exchange, "-r", key, "-b", body}, args...))
}

// AMQPGet takes one message from a queue with amqp-get; it is "" when the queue is empty.
func AMQPGet(t testing.TB, b RabbitMQBroker, vhost, queue string) string {
	t.Helper()
	return amqpTool(t, b, vhost, "amqp-get", []string{"-q", queue})
}

func amqpTool(t testing.TB, b RabbitMQBroker, vhost, name string, args []string) string {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		missing(t, rabbitMQ, name+" is not installed (apt-get install amqp-tools)")
	}
	host, port, err := net.SplitHostPort(b.Addr())
	if err != nil {
		t.Fatalf("the address of RabbitMQ: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), amqpTimeout)
	defer cancel()
	args = append([]string{"-s", host, "--port=" + port, "--vhost=" + vhost, "--username=" + b.User(), "--password=" + b.Password()}, args...)
	cmd := exec.CommandContext(ctx, program, args...)
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 2 && name == "amqp-get" {
		return "" // the queue was empty
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, errors.Join(err, ctx.Err()), said.String())
	}
	return out.String()
}
