package plain

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

const startTimeout = time.Minute

// Own is a broker that was started for this run alone.
type Own struct {
	running *server.Running
	dir     string
}

// StartOwn starts a broker that needs so many ports, in a folder that goes with it.
func StartOwn(ports int, node func(dir string, firstPort int) server.Node) (*Own, error) {
	port, err := server.FreePorts(ports)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "message-api-bench-")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	running, err := server.Start(ctx, node(dir, port))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Own{running: running, dir: dir}, nil
}

// Close ends it, whatever it is doing. A nil one was not started.
func (o *Own) Close() error {
	if o == nil {
		return nil
	}
	return errors.Join(o.running.Kill(), os.RemoveAll(o.dir))
}

// ErrMissing is returned where a broker is not installed.
type ErrMissing struct{ Err error }

func (e ErrMissing) Error() string { return e.Err.Error() }
func (e ErrMissing) Unwrap() error { return e.Err }
