//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // what a real Caddy has

	_ "github.com/caddy-message-api/caddy-message-api" // the gateway
	_ "github.com/caddy-message-api/caddy-message-api/bench/bare"
	"github.com/caddy-message-api/caddy-message-api/bench/child"
	"github.com/caddy-message-api/caddy-message-api/bench/kafka"
)

// serverRole is the name under which this program runs a Caddy in a process of its own.
const serverRole = "serve"

// serverOps are what the server's process can be asked. It also runs the plain
// clients, so that they have the same CPU as the gateway.
func serverOps() map[string]child.Op {
	ops := child.CommonOps()
	ops["load"] = child.Typed(func(caddyfile string) (struct{}, error) {
		cfg, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, caddy.Load(cfg, true)
	})
	ops["kafka-write"] = child.Typed(kafka.Write)
	ops["kafka-produce"] = child.Typed(kafka.Produce)
	ops["kafka-read"] = child.Typed(kafka.Read)
	webhookOps(ops)
	rabbitMQOps(ops)
	mqttOps(ops)
	serviceBusOps(ops)
	solaceOps(ops)
	return ops
}

// server is a running Caddy.
type server struct {
	*child.Process
	addr string
	port int
}

// startServer runs a Caddy with a site, whose global options for the gateway stand in
// globals.
func startServer(opt *options, globals, site string) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	process, err := child.Start(serverRole, opt.serverCPU)
	if err != nil {
		return nil, err
	}
	s := &server{Process: process, addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), port: port}
	if err := s.load(globals, site); err != nil {
		return nil, errors.Join(err, process.Close())
	}
	return s, nil
}

// load has the server serve a site in the place of what it serves.
func (s *server) load(globals, site string) error {
	admin, storage := "admin off", fmt.Sprintf("storage file_system %q", filepath.Join(os.TempDir(), "message-api-bench"))
	if strings.Contains(globals, "admin ") {
		admin = ""
	}
	if strings.Contains(globals, "storage ") {
		storage = ""
	}
	return s.Call("load", fmt.Sprintf(`{
	%s
	auto_https off
	persist_config off
	default_bind 127.0.0.1
	%s
	log {
		output stderr
		level ERROR
	}
	servers {
		protocols h1 h2c
	}
%s
}
:%d {
%s
}
`, admin, storage, globals, s.port, site), nil)
}

// quiet waits until the goroutines of n clients that have left are gone, so that they do
// not disturb what is measured next. before is what the server was before they came.
func (s *server) quiet(before child.Usage, n int) error {
	slack := 20 + n/10 // connections to a broker stay, for one
	for deadline := time.Now().Add(2 * patience); ; {
		u, err := s.Usage()
		if err != nil {
			return err
		}
		if u.Goroutines <= before.Goroutines+slack {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d goroutines of %d clients that left %s ago still run in the server",
				u.Goroutines-before.Goroutines, n, 2*patience)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

var lastPort = 20000 + os.Getpid()%2000

// freePort finds a port below those that the system gives to clients.
func freePort() (int, error) {
	for range 2000 {
		lastPort++
		if lastPort >= 32000 {
			lastPort = 20000
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(lastPort)))
		if err != nil {
			continue
		}
		return lastPort, l.Close()
	}
	return 0, errors.New("no port from 20000 to 32000 is free")
}

// api makes a message API with the plan that everything here uses.
func api(path string, lines ...string) string {
	return "\tmessage_api " + path + " {\n\t\t" + strings.Join(append(lines, "plan keyless"), "\n\t\t") + "\n\t}\n"
}
