package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
)

// program builds this program once, and the programs that it starts into the same
// folder.
var program = sync.OnceValues(func() (string, error) {
	dir, err := pgtest.ProcessDir()
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "run")
	out, err := exec.CommandContext(context.Background(), "go", "build", "-o", file, ".").CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	if _, err := devcluster.Build(context.Background(), dir, os.Stderr); err != nil {
		return "", err
	}
	return file, nil
})

// output is the output of a process so far.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// start runs the program with a folder and ports of its own.
func start(t *testing.T, dir string, ports int, args ...string) (*exec.Cmd, *output) {
	t.Helper()
	file, err := program()
	if err != nil {
		t.Fatal(err)
	}
	// The run finds its programs built, as after an earlier make run. Two runs may share
	// the folder of the programs.
	if err := os.Symlink(filepath.Dir(file), filepath.Join(dir, "bin")); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	var out output
	cmd := exec.CommandContext(t.Context(), file, append([]string{"--dir", dir, "--ports", strconv.Itoa(ports)}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "DATABASE_URL=", "NATS_URL=")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s wrote:\n%s", cmd, out.String())
		}
	})
	return cmd, &out
}

// freePorts returns the first of the free ports that a run needs.
func freePorts(t *testing.T) int {
	t.Helper()
	first, err := devcluster.FreePorts(4 * devcluster.PortStep)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

func await(t *testing.T, out *output, text string) {
	t.Helper()
	eventually(t, fmt.Sprintf("it says %q", text), func() bool { return strings.Contains(out.String(), text) })
}

// eventually waits until ok returns true. It fails the test after three minutes and a thousand
// attempts.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	begin := time.Now()
	for n := 1; !ok(); n++ {
		if n > 1000 && time.Since(begin) > 3*time.Minute {
			t.Fatalf("not within %s, in %d tries: %s", time.Since(begin).Round(time.Second), n, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// exitStatus waits for the end. A process that hangs is killed after a while, and its
// exit status is -1.
func exitStatus(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	limit := time.AfterFunc(5*time.Minute, func() {
		t.Error("the process did not end within 5 minutes")
		_ = cmd.Process.Kill()
	})
	defer limit.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// nothingLeft fails if a process of the run or its lock still exists.
func nothingLeft(t *testing.T, dir string, ports int) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, "lock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock is still there: %v", err)
	}
	for port := ports; port < ports+3*devcluster.PortStep; port++ {
		if err := devcluster.CheckPort(port); err != nil {
			t.Errorf("a process is still there: %v", err)
		}
	}
}

func TestRunEndsExactAndTheNextGoesOn(t *testing.T) {
	t.Parallel()

	dir, ports := pgtest.Dir(t), freePorts(t)
	// At this rate the run is still unfinished when it is interrupted, even if this process
	// interrupts it late.
	cmd, out := start(t, dir, ports, "--rate", "500", "--until-done")
	// An interrupted run continues where it was, and a finished one is finished.
	await(t, out, "rows ")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if status := exitStatus(t, cmd); status != exitInterrupted {
		t.Fatalf("exit status %d when it is cut off, want %d", status, exitInterrupted)
	}
	for range 2 {
		cmd, out = start(t, dir, ports, "--rate", "0", "--until-done")
		if status := exitStatus(t, cmd); status != 0 {
			t.Fatalf("exit status %d", status)
		}
		if want := "exact: 20,000 flights, 220 airports, 154,078 minutes of delay, 1,108 different outputs"; !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if !strings.Contains(out.String(), "all 20,000 events were fed by an earlier run") {
		t.Error("the last run has fed something, though all was fed")
	}
	nothingLeft(t, dir, ports)
}

func TestInterruptEndsEverything(t *testing.T) {
	t.Parallel()

	dir, ports := pgtest.Dir(t), freePorts(t)
	cmd, out := start(t, dir, ports)
	await(t, out, "rows ")

	second, words := start(t, dir, ports)
	if status := exitStatus(t, second); status != exitFailure || strings.Count(words.String(), "\n") != 1 ||
		!strings.Contains(words.String(), "another `make run` (pid "+strconv.Itoa(cmd.Process.Pid)+")") {
		t.Errorf("a second run in the folder: exit status %d, %q; want one line with the first one's pid", status, words)
	}

	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if status := exitStatus(t, cmd); status != exitInterrupted {
		t.Errorf("exit status %d, want %d", status, exitInterrupted)
	}
	nothingLeft(t, dir, ports)
}

func TestInterruptEndsARunWhoseProcessesDoNotAnswer(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Log("the processes of the run are found in /proc")
		return
	}

	dir, ports := pgtest.Dir(t), freePorts(t)
	cmd, out := start(t, dir, ports)
	await(t, out, "rows ")
	// Stopped processes react to no signal except SIGKILL, and answer no request. A wait for one of
	// them without a limit would last forever; the constant stopTimeout ensures that
	// the limits add up to five seconds.
	var stopped []int
	eventually(t, fmt.Sprintf("PostgreSQL, NATS and two clusters of %d processes run", clusterProcesses), func() bool {
		stopped = children(t, cmd.Process.Pid)
		return len(stopped) == 2+2*clusterProcesses
	})
	for _, pid := range stopped {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if status := exitStatus(t, cmd); status != exitInterrupted {
		t.Errorf("exit status %d, want %d", status, exitInterrupted)
	}
	t.Logf("ended after %s", time.Since(began).Round(time.Millisecond))
	nothingLeft(t, dir, ports)
}

// clusterProcesses is how many processes a cluster has: source, ingest, function.
const clusterProcesses = 3

// children returns the ids of the processes that a process has started.
func children(t *testing.T, pid int) []int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var list []int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, child)
		}
	}
	return list
}

func TestKilledRunLeavesNoProcessBehind(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Log("only Linux tells a process that its parent was killed")
		return
	}

	dir, ports := pgtest.Dir(t), freePorts(t)
	cmd, out := start(t, dir, ports)
	await(t, out, "rows ")
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	exitStatus(t, cmd)
	for port := ports; port < ports+3*devcluster.PortStep; port++ {
		eventually(t, fmt.Sprintf("no process has port %d", port), func() bool { return devcluster.CheckPort(port) == nil })
	}
}

func TestOwnEventsGoInFromAFile(t *testing.T) {
	t.Parallel()

	const flight = `,"source":"/me","type":"com.example.flight.departed","data":{"date":"2001/04/01 08:00","delay":75,"distance":316,"origin":"ORD","destination":"CLE"}}` + "\n"
	dir, ports := pgtest.Dir(t), freePorts(t)
	file := filepath.Join(dir, "events.ndjson")
	events := `{"specversion":"1.0","id":"a"` + flight + "no event\n" + `{"specversion":"1.0","id":"b"` + flight + `{"specversion":"1.0","id":"a"` + flight
	if err := os.WriteFile(file, []byte(events), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, out := start(t, dir, ports, "--input", file, "--until-done")
	if status := exitStatus(t, cmd); status != exitFailure {
		t.Errorf("exit status %d with a line that is no event, want %d", status, exitFailure)
	}
	for _, want := range []string{
		"skipped: line 2: ",
		"there are no expected totals to compare with; the tables contain 2 flights from 1 airports, with 150 minutes of delay",
		"skipped invalid lines of the input: 1 line\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
}

func TestWhatCannotStartIsSaidInOneLine(t *testing.T) {
	t.Parallel()

	ports := freePorts(t)
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(ports+devcluster.PortStep))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"taken port", nil, "tandem: cluster east: port " + strconv.Itoa(ports+devcluster.PortStep) + " on 127.0.0.1 is in use: "},
		{"no such file", []string{"--ports", strconv.Itoa(freePorts(t)), "--input", "/nonexistent"}, "tandem: --input: open /nonexistent: no such file"},
		{"wrong flag", []string{"--clusters", "9"}, "tandem: --clusters 9: want 2 to 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			cmd, out := start(t, pgtest.Dir(t), ports, tt.args...)
			status := exitStatus(t, cmd)
			if status == 0 || !strings.HasPrefix(out.String(), tt.want) || strings.Count(out.String(), "\n") != 1 {
				t.Errorf("exit status %d, %q; want one line that begins with %q", status, out, tt.want)
			}
		})
	}
}
