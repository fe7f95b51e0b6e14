package supervisor_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
)

// superviseEnv makes the test binary a supervisor that can be killed.
const superviseEnv = "TANDEM_TEST_SUPERVISE_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(superviseEnv); dir != "" {
		supervise(dir)
	}
	os.Exit(m.Run())
}

// supervise starts two processes, prints their pids, and waits to be killed.
func supervise(dir string) {
	sup, err := supervisor.New(supervisor.Config{LogDir: dir})
	if err != nil {
		panic(err)
	}
	for _, name := range []string{"one", "two"} {
		p, err := sup.Start(supervisor.ProcessConfig{Name: name, Path: "/bin/sleep", Args: []string{"1000"}})
		if err != nil {
			panic(err)
		}
		_, _ = fmt.Fprintln(os.Stdout, p.Pid())
	}
	select {}
}

func newSupervisor(t *testing.T, cfg supervisor.Config) *supervisor.Supervisor {
	t.Helper()
	cfg.LogDir = t.TempDir()
	sup, err := supervisor.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sup.Stop(context.WithoutCancel(t.Context())) })
	return sup
}

func startProcess(t *testing.T, sup *supervisor.Supervisor, cfg supervisor.ProcessConfig) *supervisor.Process {
	t.Helper()
	p, err := sup.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func shell(name, script string) supervisor.ProcessConfig {
	return supervisor.ProcessConfig{Name: name, Path: "/bin/sh", Args: []string{"-c", script}, Env: os.Environ()}
}

func alive(pid int) bool {
	return syscall.Kill(pid, 0) == nil
}

func TestKilledPartIsStartedAgain(t *testing.T) {
	t.Parallel()

	exits := make(chan supervisor.Exit, 10)
	sup := newSupervisor(t, supervisor.Config{
		RestartDelay: 20 * time.Millisecond,
		OnExit:       func(e supervisor.Exit) { exits <- e },
	})
	p := startProcess(t, sup, shell("sleeper", "exec sleep 1000"))
	for i := range 3 {
		pid := p.Pid()
		if err := p.Kill(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if e := <-exits; e.Name != "sleeper" || e.PID != pid || e.Reason != "signal: killed" {
			t.Errorf("exit %+v, want sleeper, pid %d, signal: killed", e, pid)
		}
		eventtest.Eventually(t, "it runs again", func() bool { return p.Pid() != 0 && p.Pid() != pid })
		eventtest.Eventually(t, "the restart is counted", func() bool { return p.Restarts() == i+1 })
	}
}

func TestExitTellsTheLastLineOfTheLog(t *testing.T) {
	t.Parallel()

	exits := make(chan supervisor.Exit, 10)
	sup := newSupervisor(t, supervisor.Config{OnExit: func(e supervisor.Exit) { exits <- e }})
	startProcess(t, sup, shell("talker", "echo first; echo no such thing >&2; exit 3"))
	if e := <-exits; e.Reason != "exit status 3: no such thing" {
		t.Errorf("reason %q, want the status and the last line", e.Reason)
	}
}

func TestStoppedPartStaysStopped(t *testing.T) {
	t.Parallel()

	sup := newSupervisor(t, supervisor.Config{RestartDelay: time.Millisecond})
	p := startProcess(t, sup, shell("sleeper", "exec sleep 1000"))
	pid := p.Pid()
	p.Stop(t.Context())
	if alive(pid) || p.Pid() != 0 {
		t.Errorf("process %d is there after Stop, Pid() is %d", pid, p.Pid())
	}
	if err := p.Kill(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Kill after Stop: %v, want os.ErrProcessDone", err)
	}
	startProcess(t, sup, shell("sleeper", "exec sleep 1000")) // its name is free again
}

func TestPartThatIgnoresTheSignalIsKilledAfterItsGrace(t *testing.T) {
	t.Parallel()

	sup := newSupervisor(t, supervisor.Config{})
	cfg := shell("deaf", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
	cfg.Grace = 100 * time.Millisecond
	p := startProcess(t, sup, cfg)
	eventtest.Eventually(t, "it is deaf", func() bool {
		log, err := os.ReadFile(p.LogFile())
		return err == nil && strings.Contains(string(log), "ready")
	})
	pid := p.Pid()
	start := time.Now()
	p.Stop(t.Context())
	if took := time.Since(start); took < 100*time.Millisecond { // it never ends by itself
		t.Errorf("stopping took %s, want at least the grace of 100ms", took)
	}
	if alive(pid) {
		t.Error("the process is still there")
	}
}

func TestStopEndsStageAfterStage(t *testing.T) {
	t.Parallel()

	sup := newSupervisor(t, supervisor.Config{})
	order := filepath.Join(t.TempDir(), "order")
	var processes []*supervisor.Process
	for _, s := range []struct {
		name  string
		stage supervisor.Stage
	}{{"server", supervisor.StageServers}, {"function", supervisor.StageFunctions}, {"source", supervisor.StageSources}} {
		cfg := shell(s.name, "trap 'echo "+s.name+" >>"+order+"; exit' TERM; echo ready; while :; do sleep 0.02; done")
		cfg.Stage, cfg.Grace = s.stage, time.Minute // a shell may be slow
		processes = append(processes, startProcess(t, sup, cfg))
	}
	for _, p := range processes {
		eventtest.Eventually(t, p.Name()+" listens to signals", func() bool {
			log, err := os.ReadFile(p.LogFile())
			return err == nil && strings.Contains(string(log), "ready")
		})
	}
	sup.Stop(t.Context())
	got, err := os.ReadFile(order)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != "source\nfunction\nserver\n" {
		t.Errorf("ended in the order %q, want source, function, server", got)
	}
	if _, err := sup.Start(shell("late", "sleep 1")); !errors.Is(err, supervisor.ErrStopped) {
		t.Errorf("Start after Stop: %v, want ErrStopped", err)
	}
}

func TestPartDoesNotDieWithTheThreadThatAskedForIt(t *testing.T) {
	t.Parallel()

	sup := newSupervisor(t, supervisor.Config{})
	started := make(chan *supervisor.Process)
	go func() {
		p, err := sup.Start(shell("sleeper", "exec sleep 1000"))
		if err != nil {
			t.Error(err)
		}
		started <- p
	}()
	p := <-started
	pid := p.Pid()
	time.Sleep(200 * time.Millisecond) // for a signal that must not arrive
	if p.Pid() != pid || !alive(pid) {
		t.Error("the process is gone")
	}
}

func TestNothingOutlivesAKilledSupervisor(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Log("only Linux tells a process that its parent was killed")
		return
	}

	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), superviseEnv+"="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pids [2]int
	lines := bufio.NewReader(out)
	for i := range pids {
		if _, err := fmt.Fscanln(lines, &pids[i]); err != nil {
			t.Fatal(err)
		}
		if !alive(pids[i]) {
			t.Fatalf("process %d is not there to begin with", pids[i])
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for _, pid := range pids {
		eventtest.Eventually(t, fmt.Sprintf("process %d is gone", pid), func() bool { return !alive(pid) || zombie(pid) })
	}
}

// zombie reports whether a process is dead and was not waited for: an orphan, on a
// machine without a process that waits for orphans.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestLogStartsAgainWhenItIsTooLong(t *testing.T) {
	t.Parallel()

	sup := newSupervisor(t, supervisor.Config{LogBytes: 4 << 10})
	p := startProcess(t, sup, shell("chatty", "while :; do echo a line of some length, again and again and again; sleep 0.001; done"))
	size := func() int64 {
		info, err := os.Stat(p.LogFile())
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	eventtest.Eventually(t, "the log is longer than it may be", func() bool { return size() > 4<<10 })
	eventtest.Eventually(t, "the log was emptied", func() bool { return size() < 4<<10 })
}
