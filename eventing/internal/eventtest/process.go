package eventtest

import (
	"os/exec"
	"testing"
)

// Process is a process that runs until it ends, or until its test ends.
type Process struct {
	Cmd *exec.Cmd
	Log *Buffer // its standard error

	ended chan struct{} // is closed after err is set
	err   error
}

// StartProcess starts a process.
func StartProcess(tb testing.TB, cmd *exec.Cmd) *Process {
	tb.Helper()

	p := &Process{Cmd: cmd, Log: &Buffer{}, ended: make(chan struct{})}
	cmd.Stderr = p.Log
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.err = cmd.Wait()
	}()
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.ended
	})
	return p
}

// HasEnded reports whether the process has ended.
func (p *Process) HasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Wait waits for the end of the process, and returns the error of [exec.Cmd.Wait].
func (p *Process) Wait(tb testing.TB) error {
	tb.Helper()

	Eventually(tb, "the process ends", p.HasEnded)
	return p.err
}
