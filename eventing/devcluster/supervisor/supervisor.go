package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

const (
	// DefaultGrace is the time that a process has to end after each stop signal.
	DefaultGrace = time.Second

	// defaultLogBytes is enough to find a cause and too little to fill a disk.
	defaultLogBytes = 64 << 20

	logCheckInterval = 5 * time.Second
)

// ErrStopped is the error of a supervisor or a process that has been stopped.
var ErrStopped = errors.New("stopped")

// Exit describes the end of a process that was not stopped.
type Exit struct {
	// Name is the name of the process.
	Name string

	// PID is the id of the process, or 0 if it did not start.
	PID int

	// Reason is the exit status, for example "signal: killed", with the last line
	// of the log if the process ended by itself.
	Reason string
}

// Config is the configuration of a [Supervisor].
type Config struct {
	// LogDir is the folder of the logs, <name>.log. Each is truncated when its process
	// is started for the first time. Required; created if missing.
	LogDir string

	// LogBytes is the size at which a log is truncated. At least 4 KiB. Defaults to 64
	// MiB.
	LogBytes int64

	// RestartDelay is the time between a process's end and its next start. Defaults to
	// 1 s.
	RestartDelay time.Duration

	// OnExit, if set, is called for each process that ended without being stopped. It
	// must not block.
	OnExit func(Exit)
}

// Supervisor starts processes, restarts them when they end, and stops them. It is safe
// for concurrent use.
type Supervisor struct {
	cfg    Config
	starts chan startRequest
	closed chan struct{}

	mu        sync.Mutex
	processes map[string]*Process
	stopped   bool
}

type startRequest struct {
	cmd  *exec.Cmd
	done chan<- error
}

// New returns a supervisor. It keeps one operating-system thread until Stop is called.
func New(cfg Config) (*Supervisor, error) {
	if cfg.LogDir == "" {
		return nil, errors.New("set up supervisor: LogDir is missing")
	}
	cfg.LogBytes = cmp.Or(cfg.LogBytes, defaultLogBytes)
	if cfg.LogBytes < 4<<10 {
		return nil, fmt.Errorf("set up supervisor: LogBytes is %d, want at least 4096", cfg.LogBytes)
	}
	cfg.RestartDelay = cmp.Or(cfg.RestartDelay, time.Second)
	if err := os.MkdirAll(cfg.LogDir, 0o755); err != nil {
		return nil, fmt.Errorf("create folder for logs: %w", err)
	}
	s := &Supervisor{
		cfg:       cfg,
		starts:    make(chan startRequest),
		closed:    make(chan struct{}),
		processes: make(map[string]*Process),
	}
	go s.startFromOneThread()
	go s.boundLogs()
	return s, nil
}

// startFromOneThread forks every child from the same thread. A child's death signal
// follows the thread that forked it, not the process: children of a thread that the
// runtime may end would be killed for no reason.
func (s *Supervisor) startFromOneThread() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	for {
		select {
		case r := <-s.starts:
			r.done <- r.cmd.Start()
		case <-s.closed:
			return
		}
	}
}

func (s *Supervisor) start(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	select {
	case s.starts <- startRequest{cmd: cmd, done: done}:
		return <-done
	case <-s.closed:
		return ErrStopped
	}
}

// boundLogs truncates logs that exceed the limit. The processes append, so their next
// output is at the start of the truncated file.
func (s *Supervisor) boundLogs() {
	tick := time.NewTicker(logCheckInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.closed:
			return
		}
		for _, p := range s.all() {
			if info, err := os.Stat(p.LogFile()); err == nil && info.Size() > s.cfg.LogBytes {
				_ = os.Truncate(p.LogFile(), 0) // the next tick tries again
			}
		}
	}
}

// Start starts a process and keeps it running until it is stopped. The error is about
// the first start only; the caller has to find out whether the process works.
func (s *Supervisor) Start(cfg ProcessConfig) (*Process, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	p := &Process{
		cfg:  cfg,
		sup:  s,
		log:  filepath.Join(s.cfg.LogDir, cfg.Name+".log"),
		quit: make(chan struct{}),
		done: make(chan struct{}),
	}
	if err := os.WriteFile(p.log, nil, 0o644); err != nil {
		return nil, fmt.Errorf("start %s: create its log: %w", cfg.Name, err)
	}
	if err := s.add(p); err != nil {
		return nil, err
	}
	if err := p.start(); err != nil {
		s.remove(p)
		close(p.done)
		return nil, err
	}
	go p.keep()
	return p, nil
}

func (s *Supervisor) add(p *Process) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return fmt.Errorf("start %s: supervisor: %w", p.cfg.Name, ErrStopped)
	}
	if _, ok := s.processes[p.cfg.Name]; ok {
		return fmt.Errorf("start %s: a process of this name is running", p.cfg.Name)
	}
	s.processes[p.cfg.Name] = p
	return nil
}

func (s *Supervisor) remove(p *Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.processes[p.cfg.Name] == p {
		delete(s.processes, p.cfg.Name)
	}
}

func (s *Supervisor) all() []*Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	processes := make([]*Process, 0, len(s.processes))
	for _, p := range s.processes {
		processes = append(processes, p)
	}
	return processes
}

// Stop stops every process permanently and then the supervisor itself: one stage after
// the other in the order of [ProcessConfig].Stage, the processes of a stage
// concurrently. It takes no longer than the sum of the longest grace of each stage, or
// until ctx is done, after which all remaining processes are killed.
func (s *Supervisor) Stop(ctx context.Context) {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return
	}
	s.stopped = true
	s.mu.Unlock()

	processes := s.all()
	for _, p := range processes {
		p.hold() // a process that ends because another one has ended is not restarted
	}
	for stage := Stage(0); stage < stages; stage++ {
		var wg sync.WaitGroup
		for _, p := range processes {
			if p.cfg.Stage == stage {
				wg.Go(func() { p.Stop(ctx) })
			}
		}
		wg.Wait()
	}
	close(s.closed)
}
