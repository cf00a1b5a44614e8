// Command brokerctl starts and stops the brokers that all tests share. What they need must
// be installed; Kafka's jars are fetched by scripts/kafka.sh, which then calls this, as
// scripts/rabbitmq.sh and scripts/mosquitto.sh do.
//
//	brokerctl -dir .brokers kafka|rabbitmq|mosquitto up|down|status|env
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() {
	dir := flag.String("dir", ".brokers", "where data and logs are, in a directory for each broker")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: brokerctl [-dir DIR] kafka|rabbitmq|mosquitto up|down|status|env")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(*dir, flag.Arg(0), flag.Arg(1), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "brokerctl:", err)
		os.Exit(1)
	}
}

func run(dir, broker, command string, out io.Writer) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	s, err := find(dir, broker)
	if err != nil {
		return err
	}
	switch command {
	case "up":
		return s.up(out)
	case "down":
		return s.down(out)
	case "status":
		return s.status(out)
	case "env":
		return s.env(out)
	default:
		return fmt.Errorf("%q is not a command: use up, down, status or env", command)
	}
}
