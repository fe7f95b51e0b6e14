package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// Computer computes effects in a process of a program, which starts with the first
// event. It is safe for concurrent use; concurrent calls take turns.
type Computer struct {
	program     *Program
	description Description

	mu     sync.Mutex
	cmd    *exec.Cmd // nil until the process is started
	stdin  io.WriteCloser
	stdout *json.Decoder
	stderr tail
	failed error // the error of the process
}

// Compute returns a Computer of the program. Its process runs until Close is called.
func (p *Program) Compute(ctx context.Context) (*Computer, error) {
	description, err := p.Describe(ctx)
	if err != nil {
		return nil, err
	}
	return &Computer{program: p, description: description}, nil
}

func (c *Computer) start() (err error) {
	cmd := c.program.run(context.Background(), CommandCompute)
	cmd.Stderr = &c.stderr
	if c.stdin, err = cmd.StdinPipe(); err != nil {
		return fmt.Errorf("start %s: %w", c.program.name, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start %s: %w", c.program.name, err)
	}
	c.stdout = json.NewDecoder(stdout)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", c.program.name, err)
	}
	c.cmd = cmd
	return nil
}

// Functions returns the functions of the program. Their Handle computes in the process,
// and they have no migrations.
func (c *Computer) Functions() []functions.Function {
	fs := make([]functions.Function, len(c.description.Functions))
	for i, f := range c.description.Functions {
		fs[i] = functions.Function{Name: f.Name, Version: f.Version, Types: f.Types, Handle: func(_ context.Context, e event.Event) (functions.Effects, error) {
			return c.compute(f.Name, e)
		}}
	}
	return fs
}

// Err returns the error with which the process failed, if it did. After that the errors
// of Handle are not the functions'.
func (c *Computer) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

func (c *Computer) compute(function string, e event.Event) (functions.Effects, error) {
	line, err := appendCall(nil, function, e)
	if err != nil {
		return functions.Effects{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return functions.Effects{}, c.failed
	}
	if c.cmd == nil {
		if c.failed = c.start(); c.failed != nil {
			return functions.Effects{}, c.failed
		}
	}
	var a answer
	if _, err = c.stdin.Write(line); err == nil {
		err = c.stdout.Decode(&a)
	}
	if err != nil {
		c.failed = fmt.Errorf("compute event %s of %s with %s: %w", e.ID(), e.Source(), c.program.name, c.end(err))
		return functions.Effects{}, c.failed
	}
	return a.effects()
}

// end waits for a process that does not answer any more, and returns the reason.
func (c *Computer) end(err error) error {
	_ = c.stdin.Close()
	if ended := c.cmd.Wait(); ended != nil {
		return withReason(ended, c.stderr.String())
	}
	if errors.Is(err, io.EOF) {
		return errors.New("the program ended")
	}
	return err
}

// Close ends the process.
func (c *Computer) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return nil // the process has ended
	}
	c.failed = errors.New("the program is closed")
	if c.cmd == nil {
		return nil
	}
	_ = c.stdin.Close()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("end %s: %w", c.program.name, withReason(err, c.stderr.String()))
	}
	return nil
}

// tail keeps the end of the text that is written to it.
type tail struct{ text []byte }

// Write implements [io.Writer].
func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-2*maxReason):]
	return len(p), nil
}

// String returns the kept text.
func (t *tail) String() string { return string(t.text) }
