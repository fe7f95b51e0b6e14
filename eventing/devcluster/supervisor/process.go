package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Stage orders the processes that [Supervisor.Stop] stops: lower stages first.
type Stage int

// The stages, along the path of an event: sources end before functions, and the
// servers that all of them need end last.
const (
	StageSources Stage = iota
	StageFunctions
	StageServers
	stages
)

// ProcessConfig is the configuration of a supervised process.
type ProcessConfig struct {
	// Name is the name of the process and of its log. Required.
	Name string

	// Path is the file of the program, and Args are its arguments. Path is required.
	Path string
	Args []string

	// Env is the whole environment, in the form of os.Environ. Defaults to none.
	Env []string

	// Dir is the working directory. Defaults to the supervisor's.
	Dir string

	// Stage is the stage in which the process is stopped. Defaults to StageSources, the
	// first.
	Stage Stage

	// Grace is the time that the process has to end after each of StopSignals, before
	// the next one, and finally SIGKILL, is sent. Defaults to 1 s.
	Grace time.Duration

	// StopSignals ask the process to end, each more urgent than the one before.
	// Defaults to SIGTERM.
	StopSignals []syscall.Signal

	// DeathSignal is sent to the process on Linux when the supervisor dies.
	// Defaults to SIGKILL.
	DeathSignal syscall.Signal

	// Account, if set, is the account that runs the process. Only root can set it.
	Account *Account

	// Before, if set, is called before each start but the first; it may wait.
	// It returns when its context is done.
	Before func(context.Context)

	// After, if set, is called after the process has been stopped permanently, to end
	// another process that replaced it. It must return soon, and immediately if its
	// context is done.
	After func(context.Context)
}

func (c ProcessConfig) withDefaults() ProcessConfig {
	c.Grace = cmp.Or(c.Grace, DefaultGrace)
	if len(c.StopSignals) == 0 {
		c.StopSignals = []syscall.Signal{syscall.SIGTERM}
	}
	c.DeathSignal = cmp.Or(c.DeathSignal, syscall.SIGKILL)
	if c.Env == nil {
		c.Env = []string{} // nil would mean this process's
	}
	return c
}

func (c ProcessConfig) validate() error {
	var errs []error
	if c.Name == "" {
		errs = append(errs, errors.New("name is missing"))
	}
	if c.Path == "" {
		errs = append(errs, errors.New("path of the program is missing"))
	}
	if c.Stage < 0 || c.Stage >= stages {
		errs = append(errs, fmt.Errorf("stage %d: want 0 to %d", c.Stage, stages-1))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("configure process %q: %w", c.Name, err)
	}
	return nil
}

// Process is a supervised process. Its pid changes with each restart. It is safe for
// concurrent use.
type Process struct {
	cfg  ProcessConfig
	sup  *Supervisor
	log  string
	quit chan struct{} // is closed when the process must not be started again
	done chan struct{} // is closed when the process has ended permanently

	mu       sync.Mutex
	cmd      *exec.Cmd     // nil while the process is not running
	ended    chan struct{} // is closed when cmd has ended
	restarts int
	failed   bool // the process last ended with a status other than 0, and not by a signal
	held     bool
}

// Name returns the name of the process.
func (p *Process) Name() string { return p.cfg.Name }

// LogFile returns the file that holds the output of the process.
func (p *Process) LogFile() string { return p.log }

// Done returns a channel that is closed when the process has been stopped permanently.
func (p *Process) Done() <-chan struct{} { return p.done }

// Pid returns the id of the running process, or 0 while it is being restarted.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Restarts returns the number of restarts.
func (p *Process) Restarts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.restarts
}

// Failed reports whether the process last ended with a status of its own other than 0,
// so that a restart will fail too. A process that was ended by a signal has not failed.
func (p *Process) Failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// Ended returns a channel that is closed when the process ends, even if it is restarted
// then. The channel is closed already if the process is not running.
func (p *Process) Ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		none := make(chan struct{})
		close(none)
		return none
	}
	return p.ended
}

// Kill sends a signal, SIGKILL or another. If it ends the process, the process is
// restarted. The error is os.ErrProcessDone if the process is not running.
func (p *Process) Kill(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return fmt.Errorf("send %s to %s: %w", sig, p.cfg.Name, os.ErrProcessDone)
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("send %s to %s: %w", sig, p.cfg.Name, err)
	}
	return nil
}

// Stop stops the process permanently and waits for its end. It sends StopSignals first,
// then SIGKILL; immediately if ctx is done.
func (p *Process) Stop(ctx context.Context) {
	p.hold()
	defer p.sup.remove(p)
	if p.cfg.After != nil {
		defer p.cfg.After(ctx)
	}

	for _, sig := range p.cfg.StopSignals {
		_ = p.Kill(sig) // it may have ended already
		timer := time.NewTimer(p.cfg.Grace)
		select {
		case <-p.done:
			timer.Stop()
			return
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
	p.destroy()
}

// Destroy ends the process permanently with SIGKILL and waits for its end.
func (p *Process) Destroy() {
	p.hold()
	defer p.sup.remove(p)
	p.destroy()
}

func (p *Process) destroy() {
	_ = p.Kill(syscall.SIGKILL) // it may have ended already
	<-p.done
}

// hold prevents restarts.
func (p *Process) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.held {
		p.held = true
		close(p.quit)
	}
}

func (p *Process) start() error {
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: open its log: %w", p.cfg.Name, err)
	}
	defer func() { _ = out.Close() }() // the process has its own descriptor

	// The process ends when it is stopped, not when a context is done.
	cmd := exec.CommandContext(context.Background(), p.cfg.Path, p.cfg.Args...)
	cmd.Env = p.cfg.Env
	cmd.Dir = p.cfg.Dir
	cmd.Stdout = out
	cmd.Stderr = out
	cmd.SysProcAttr = Attributes(p.cfg.DeathSignal, p.cfg.Account)

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held {
		return fmt.Errorf("start %s: %w", p.cfg.Name, ErrStopped)
	}
	if err := p.sup.start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.cfg.Name, err)
	}
	p.cmd = cmd
	p.ended = make(chan struct{})
	return nil
}

// keep restarts the process until it is stopped.
func (p *Process) keep() {
	defer close(p.done)
	for {
		p.report(p.wait())
		if !p.pause() {
			return
		}
		for {
			err := p.start()
			if err == nil {
				break
			}
			p.report(Exit{Name: p.cfg.Name, Reason: err.Error()})
			if !p.pause() {
				return
			}
		}
		p.mu.Lock()
		p.restarts++
		p.mu.Unlock()
	}
}

// wait returns how the process ended.
func (p *Process) wait() Exit {
	p.mu.Lock()
	cmd, ended := p.cmd, p.ended
	p.mu.Unlock()

	err := cmd.Wait()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	byItself := !ok || !status.Signaled()

	p.mu.Lock()
	p.cmd = nil
	p.failed = err != nil && byItself
	p.mu.Unlock()
	close(ended)

	exit := Exit{Name: p.cfg.Name, PID: cmd.Process.Pid, Reason: "exit status 0"}
	if err != nil {
		exit.Reason = err.Error()
	}
	if err != nil && byItself {
		if line := p.LastLine(); line != "" {
			exit.Reason += ": " + line
		}
	}
	return exit
}

func (p *Process) report(exit Exit) {
	select {
	case <-p.quit:
	default:
		if p.sup.cfg.OnExit != nil {
			p.sup.cfg.OnExit(exit)
		}
	}
}

// pause waits until the next start is due, and reports whether there will be one.
func (p *Process) pause() bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-p.quit:
			cancel()
		case <-ctx.Done():
		}
	}()

	timer := time.NewTimer(p.sup.cfg.RestartDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	if p.cfg.Before != nil {
		p.cfg.Before(ctx)
	}
	return ctx.Err() == nil
}
