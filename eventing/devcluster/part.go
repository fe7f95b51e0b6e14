package devcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Stage is when a part is ended by [Supervisor.Stop]: the lower first.
type Stage int

// The stages, in the way of an event: what brings events ends before what
// handles them, and what all depend on ends last.
const (
	StageSources Stage = iota
	StageFunctions
	StageServers
	stages
)

// PartConfig describes a process to be supervised. A field left at zero takes
// the default named beside it.
type PartConfig struct {
	// Name is what people call it, and its log. Required.
	Name string

	// Path is the program's file, Args what follows its name. Path is required.
	Path string
	Args []string

	// Env is the whole environment, as os.Environ gives it. Defaults to none.
	Env []string

	// Dir is the working directory. Defaults to the supervisor's.
	Dir string

	// Stage is when it is ended. Defaults to StageSources, the first.
	Stage Stage

	// Grace is how long the process may take to end after each of
	// StopSignals, before the next, and at last SIGKILL, is sent.
	// Defaults to 1 s.
	Grace time.Duration

	// StopSignals ask the process to end, each more urgent than the one
	// before. Defaults to SIGTERM.
	StopSignals []syscall.Signal

	// DeathSignal is what the process gets on Linux when the supervisor dies.
	// Defaults to SIGKILL.
	DeathSignal syscall.Signal

	// Account, if set, is who the process runs as. Only root can set it.
	Account *Account

	// Before, if set, is called before each start but the first; it may wait.
	// It gives up when its context is done.
	Before func(context.Context)

	// After, if set, is called when the part has been stopped for ever, to end
	// what took the process's place. It is done soon, at once if its context is.
	After func(context.Context)
}

func (c PartConfig) withDefaults() PartConfig {
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if len(c.StopSignals) == 0 {
		c.StopSignals = []syscall.Signal{syscall.SIGTERM}
	}
	if c.DeathSignal == 0 {
		c.DeathSignal = syscall.SIGKILL
	}
	if c.Env == nil {
		c.Env = []string{} // nil would mean ours
	}
	return c
}

func (c PartConfig) validate() error {
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
		return fmt.Errorf("describe part %q: %w", c.Name, err)
	}
	return nil
}

// Part is a supervised process. Its methods may be called concurrently.
type Part struct {
	cfg  PartConfig
	sup  *Supervisor
	log  string
	quit chan struct{} // closed when it must not start again
	done chan struct{} // closed when it has ended for ever

	mu       sync.Mutex
	cmd      *exec.Cmd     // nil while it is not running
	ended    chan struct{} // closed when cmd has ended
	restarts int
	failed   bool // the last one that ended did so with a status of its own, not 0
	held     bool
}

// Name is what the part is called.
func (p *Part) Name() string { return p.cfg.Name }

// LogFile is where the process's output goes.
func (p *Part) LogFile() string { return p.log }

// Done is closed when the part has been stopped and its process is gone.
func (p *Part) Done() <-chan struct{} { return p.done }

// Pid is the running process's id, or 0 between two of them.
func (p *Part) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Restarts is how often the process has been started again.
func (p *Part) Restarts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.restarts
}

// hasFailed says whether the process that ended last did so with a failure of its
// own, so that the next one will too; not if somebody killed or stopped it.
func (p *Part) hasFailed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// incarnation gives a channel that is closed when the process that runs now has
// ended; a closed one if none runs.
func (p *Part) incarnation() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		none := make(chan struct{})
		close(none)
		return none
	}
	return p.ended
}

// Kill sends the running process a signal, SIGKILL or another; if it dies of it,
// it is started again. The error is os.ErrProcessDone if none is running.
func (p *Part) Kill(sig syscall.Signal) error {
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

// Stop ends the process for ever and waits until it is gone: politely first,
// then with SIGKILL, which is also what follows when ctx is done.
func (p *Part) Stop(ctx context.Context) {
	p.hold()
	defer p.sup.remove(p)
	if p.cfg.After != nil {
		defer p.cfg.After(ctx)
	}

	for _, sig := range p.cfg.StopSignals {
		_ = p.Kill(sig) // gone already is what we want
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

// Destroy ends the process for ever with SIGKILL and waits until it is gone.
func (p *Part) Destroy() {
	p.hold()
	defer p.sup.remove(p)
	p.destroy()
}

func (p *Part) destroy() {
	_ = p.Kill(syscall.SIGKILL) // gone already is what we want
	<-p.done
}

// hold keeps the part from being started again.
func (p *Part) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.held {
		p.held = true
		close(p.quit)
	}
}

func (p *Part) start() error {
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: open its log: %w", p.cfg.Name, err)
	}
	defer func() { _ = out.Close() }() // the process has its own

	// The process ends when it is stopped, not when a context is done.
	cmd := exec.CommandContext(context.Background(), p.cfg.Path, p.cfg.Args...)
	cmd.Env = p.cfg.Env
	cmd.Dir = p.cfg.Dir
	cmd.Stdout = out
	cmd.Stderr = out
	cmd.SysProcAttr = processAttributes(p.cfg.DeathSignal, p.cfg.Account)

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

// keep waits for the process and starts it again, until the part is stopped.
func (p *Part) keep() {
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
func (p *Part) wait() Exit {
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
		if line := lastLine(p.log); line != "" {
			exit.Reason += ": " + line
		}
	}
	return exit
}

func (p *Part) report(exit Exit) {
	select {
	case <-p.quit:
	default:
		if p.sup.cfg.OnExit != nil {
			p.sup.cfg.OnExit(exit)
		}
	}
}

// pause waits until it is time for the next start; false if there is none.
func (p *Part) pause() bool {
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
