// Package child runs parts of a benchmark in processes of their own, each on a CPU of its
// own, and asks them for what they have used.
//
// Parent and child speak JSON over the child's standard input and output, one call at a
// time. A child ends when its input does, so it can't outlive its parent.
package child

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// Op is something that a parent can ask of a child. Its result is sent as JSON.
type Op func(args json.RawMessage) (any, error)

type call struct {
	Op   string          `json:"op"`
	Args json.RawMessage `json:"args,omitempty"`
}

type reply struct {
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// Serve answers calls until in ends.
func Serve(in io.Reader, out io.Writer, ops map[string]Op) error {
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var c call
		if err := dec.Decode(&c); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("reading a call: %w", err)
		}
		if err := enc.Encode(answer(ops, &c)); err != nil {
			return fmt.Errorf("answering %s: %w", c.Op, err)
		}
	}
}

func answer(ops map[string]Op, c *call) reply {
	op, ok := ops[c.Op]
	if !ok {
		return reply{Error: "unknown operation " + c.Op}
	}
	result, err := op(c.Args)
	if err != nil {
		return reply{Error: err.Error()}
	}
	raw, err := json.Marshal(result)
	if err != nil {
		return reply{Error: err.Error()}
	}
	return reply{Result: raw}
}

// Typed makes an Op of a function with typed arguments.
func Typed[A, R any](f func(A) (R, error)) Op {
	return func(raw json.RawMessage) (any, error) {
		var args A
		if len(raw) > 0 {
			if err := json.Unmarshal(raw, &args); err != nil {
				return nil, fmt.Errorf("arguments: %w", err)
			}
		}
		return f(args)
	}
}

// Process is a running child.
type Process struct {
	role string
	cmd  *exec.Cmd
	in   io.WriteCloser
	enc  *json.Encoder
	dec  *json.Decoder
}

// Start runs this program again in a role, on a CPU (negative: any). Its log goes to
// this process's standard error.
func Start(role string, cpu int) (*Process, error) {
	cmd := exec.Command("/proc/self/exe", role, "-cpu", strconv.Itoa(cpu)) //nolint:gosec // it is this program
	cmd.Args[0] = os.Args[0]
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", role, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", role, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", role, err)
	}
	return &Process{role: role, cmd: cmd, in: in, enc: json.NewEncoder(in), dec: json.NewDecoder(out)}, nil
}

// Call has the child do something, and decodes the result unless it is nil.
func (p *Process) Call(op string, args, result any) error {
	raw, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", p.role, op, err)
	}
	if err := p.enc.Encode(call{Op: op, Args: raw}); err != nil {
		return fmt.Errorf("%s: %s: %w", p.role, op, err)
	}
	var r reply
	if err := p.dec.Decode(&r); err != nil {
		return fmt.Errorf("%s: %s: the process is gone: %w", p.role, op, err)
	}
	if r.Error != "" {
		return fmt.Errorf("%s: %s: %s", p.role, op, r.Error)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(r.Result, result); err != nil {
		return fmt.Errorf("%s: %s: %w", p.role, op, err)
	}
	return nil
}

// Usage asks the child what it has used.
func (p *Process) Usage() (u Usage, err error) {
	err = p.Call("usage", nil, &u)
	return u, err
}

// Close ends the child and waits for it, and kills it when that takes too long.
func (p *Process) Close() error {
	const patience = 10 * time.Second
	err := p.in.Close()
	kill := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() }) // fails when it has ended, which is what is wanted
	defer kill.Stop()
	if err := errors.Join(err, p.cmd.Wait()); err != nil {
		return fmt.Errorf("ending %s: %w", p.role, err)
	}
	return nil
}
