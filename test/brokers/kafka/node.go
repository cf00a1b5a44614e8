package kafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The users that every node knows, on each of its SASL listeners.
const (
	// User may do everything. The client certificate names it too.
	User = "alice"
	// Stranger may log in and is denied everything else.
	Stranger = "bob"
	// Password is that of both.
	Password = "correct-horse"
)

// StopGrace is how long a node has to end by itself after SIGTERM.
const StopGrace = 15 * time.Second

// Node is one Apache Kafka on disk, running or not. The same directory can be started
// again and again, with the same ports and data.
type Node struct {
	// Dir holds data, configuration, certificates and log of this node alone. Absolute.
	Dir string
	// Libs is the directory with the jars.
	Libs string
	// FirstPort is the first of Ports consecutive ports.
	FirstPort int
}

// Log is the file that the broker's output is appended to, over all its starts.
func (n Node) Log() string { return filepath.Join(n.Dir, "kafka.log") }

// Prepare writes the configuration and, the first time, certificates and an empty,
// formatted data directory. The node must not be running.
func (n Node) Prepare(ctx context.Context) error {
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return err
	}
	if err := n.writeConfiguration(); err != nil {
		return fmt.Errorf("writing Kafka's configuration: %w", err)
	}
	certs := filepath.Join(n.Dir, "certs")
	if _, err := os.Stat(CertificatesIn(certs).server); errors.Is(err, os.ErrNotExist) {
		if err := makeCertificates(certs); err != nil {
			return fmt.Errorf("making certificates: %w", err)
		}
	}
	if _, err := os.Stat(filepath.Join(n.Dir, "data", "meta.properties")); err == nil {
		return nil
	}
	return n.format(ctx)
}

func (n Node) format(ctx context.Context) error {
	args := []string{"format", "--cluster-id", "bWVzc2FnZS1hcGktdGVzdA", "--config", n.properties()}
	for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
		for _, user := range []string{User, Stranger} {
			args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, user, Password))
		}
	}
	cmd, err := n.java("-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool")
	if err != nil {
		return err
	}
	format := exec.CommandContext(ctx, cmd.Path, append(cmd.Args[1:], args...)...)
	if out, err := format.CombinedOutput(); err != nil {
		return fmt.Errorf("formatting Kafka's storage: %w\n%s", err, out)
	}
	return nil
}

// Command is the broker in the foreground, its output appended to Log. The caller starts
// it, and closes the file in Stdout when it has.
func (n Node) Command() (*exec.Cmd, error) {
	cmd, err := n.java("-Xmx512m", "kafka.Kafka", n.properties())
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(n.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = n.Dir, log, log
	return cmd, nil
}

func (n Node) java(option, class string, args ...string) (*exec.Cmd, error) {
	java, err := FindJava()
	if err != nil {
		return nil, err
	}
	all := []string{
		option, "-XX:+UseSerialGC", "-Dlog4j2.configurationFile=" + filepath.Join(n.Dir, "log4j2.properties"),
		"-cp", filepath.Join(n.Libs, "*"), class,
	}
	return exec.Command(java, append(all, args...)...), nil
}

// FindJava returns the java program of JAVA_HOME or of the PATH.
func FindJava() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		return exec.LookPath(filepath.Join(home, "bin", "java"))
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return "", fmt.Errorf("the Apache Kafka of the tests needs Java 17 or newer (apt-get install default-jre-headless): %w", err)
	}
	return java, nil
}

// HasJars says whether a directory looks like one that scripts/kafka.sh has filled.
func HasJars(libs string) bool {
	found, err := filepath.Glob(filepath.Join(libs, "kafka_2.13-*.jar"))
	return err == nil && len(found) > 0
}

// ErrPortTaken is returned by Await when the node ended because somebody else listens on
// one of its ports.
var ErrPortTaken = errors.New("a port of the broker is taken")

// Await waits until the broker answers. ended must be closed when its process has ended.
func (n Node) Await(ctx context.Context, ended <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- awaitBroker(ctx, n.Listeners().Plain) }()
	select {
	case err := <-ready:
		if err != nil {
			return fmt.Errorf("%w; the end of its log:\n%s", err, n.LogTail())
		}
		return nil
	case <-ended:
		cancel()
		<-ready
		tail := n.LogTail()
		if strings.Contains(tail, "Address already in use") {
			return ErrPortTaken
		}
		return fmt.Errorf("the broker ended at once; the end of its log:\n%s", tail)
	}
}

// LogTail is the end of the log, for error messages.
func (n Node) LogTail() string {
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
	if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-ended
	return nil
}
