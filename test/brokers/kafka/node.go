package kafka

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

// The users that every node knows, on each of its SASL listeners.
const (
	// User may do everything. The client certificate names it too.
	User = server.User
	// Stranger may log in and is denied everything else.
	Stranger = server.Stranger
	// Password is that of both.
	Password = server.Password
)

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

// Name is what it is.
func (n Node) Name() string { return "Apache Kafka" }

// Addr is where clients find it.
func (n Node) Addr() string { return n.Listeners().Plain }

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
	if err := server.MakeCertificates(filepath.Join(n.Dir, "certs")); err != nil {
		return fmt.Errorf("making certificates: %w", err)
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

// Commands is the broker in the foreground, its output appended to Log.
func (n Node) Commands() ([]*exec.Cmd, error) {
	cmd, err := n.java("-Xmx512m", "kafka.Kafka", n.properties())
	if err != nil {
		return nil, err
	}
	cmd.Dir = n.Dir
	return []*exec.Cmd{cmd}, nil
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

// Ready asks the broker whether it can be used.
func (n Node) Ready(ctx context.Context) error { return askForBroker(ctx, n.Listeners().Plain) }
