package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// The users that the brokers know where they ask who somebody is.
const (
	// User may do everything. The client certificate names it too.
	User = "alice"
	// Stranger may log in and is denied everything else.
	Stranger = "bob"
	// Password is that of both.
	Password = "correct-horse"
)

// StopGrace is how long a broker has to end by itself after SIGTERM. RabbitMQ takes six
// seconds of it when the machine does nothing else.
const StopGrace = 30 * time.Second

const (
	pollInterval = 50 * time.Millisecond
	askTimeout   = 3 * time.Second
)

// Node is one broker on disk, running or not. The same directory can be started again and
// again, with the same ports and data.
type Node interface {
	// Name is what it is, as "Apache Kafka".
	Name() string
	// Addr is where its clients find it.
	Addr() string
	// Prepare writes what it needs, and keeps what an earlier run has left. The node must
	// not be running.
	Prepare(ctx context.Context) error
	// Commands are its processes in the order of their start, the broker being the last.
	// The directory of the node must occur in each command line, as the kernel shows it,
	// so that a process can be told from a stranger's with the same number.
	Commands() ([]*exec.Cmd, error)
	// Ready asks the broker whether it can be used.
	Ready(ctx context.Context) error
	// Log is the file that the output of its processes is to be appended to, over all its
	// starts.
	Log() string
}

// OpenLog lets the command write to the node's log. The caller closes the file when it has
// started the command.
func OpenLog(n Node, cmd *exec.Cmd) (*os.File, error) {
	log, err := os.OpenFile(n.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	return log, nil
}

// ErrPortTaken is returned by Await when the node ended because somebody else listens on
// one of its ports.
var ErrPortTaken = errors.New("a port of the broker is taken")

// portTaken is what the brokers' logs say of that.
var portTaken = []string{"Address already in use", "eaddrinuse", "could not bind to distribution port"}

// Await waits until the broker can be used. ended must be closed when one of its processes
// has ended, or be nil.
func Await(ctx context.Context, n Node, ended <-chan struct{}) error {
	for {
		err := ask(ctx, n)
		select {
		case <-ended: // even if somebody answers, it is another
			tail := LogTail(n)
			for _, text := range portTaken {
				if strings.Contains(tail, text) {
					return ErrPortTaken
				}
			}
			return fmt.Errorf("%s ended at once; the end of its log:\n%s", n.Name(), tail)
		default:
		}
		if err == nil {
			return nil
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return fmt.Errorf("%s at %s can't be used: %w; the end of its log:\n%s", n.Name(), n.Addr(), err, LogTail(n))
		case <-time.After(pollInterval):
		}
	}
}

func ask(ctx context.Context, n Node) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return n.Ready(ctx)
}

// LogTail is the end of the log, for error messages.
func LogTail(n Node) string {
	const most = 6000
	log, err := os.ReadFile(n.Log())
	if err != nil {
		return err.Error()
	}
	if len(log) > most {
		log = log[len(log)-most:]
	}
	return string(log)
}

// End asks a process to end, and makes it when it takes longer than StopGrace. ended must
// be closed when it has.
func End(process *os.Process, ended <-chan struct{}) error {
	if err := process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-ended:
		return nil
	case <-time.After(StopGrace):
	}
	return Kill(process, ended)
}

// Kill ends a process at once. ended must be closed when it has.
func Kill(process *os.Process, ended <-chan struct{}) error {
	if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-ended
	return nil
}

// FindProgram finds a program on the PATH or in the directories of servers, which ordinary
// users don't have there.
func FindProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin/", "/usr/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", err
}
