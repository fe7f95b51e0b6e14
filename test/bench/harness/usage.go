package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of processor times in /proc: 100 a second on every Linux that
// Go supports.
const clockTick = 10 * time.Millisecond

// ProcessorTime returns the processor time of a process, all its threads together.
// It returns false if the system does not count it, which is every system except
// Linux.
func ProcessorTime(pid int) (time.Duration, bool) {
	s, ok := readStat(fmt.Sprintf("/proc/%d/stat", pid))
	return s.own, ok
}

// ProcessorTime returns the same for all processes of PostgreSQL.
func (s *Servers) ProcessorTime() (used time.Duration, known bool) {
	postmaster := s.Postgres().Process().Pid()
	main, ok := readStat(fmt.Sprintf("/proc/%d/stat", postmaster))
	if !ok {
		return 0, false
	}
	used = main.own + main.ended
	for _, child := range children(postmaster) {
		used += child.own
	}
	return used, true
}

// Freeze stops all processes of PostgreSQL for length. It fails if the system does not list
// them, which is every system except Linux.
func (s *Servers) Freeze(length time.Duration) error {
	postmaster := s.Postgres().Process()
	if err := postmaster.Kill(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	backends := children(postmaster.Pid()) // it creates no more
	all := func(signal syscall.Signal) {
		for pid := range backends {
			_ = syscall.Kill(pid, signal) // a process that has ended needs none
		}
	}
	all(syscall.SIGSTOP)
	time.Sleep(length)
	all(syscall.SIGCONT)
	if err := postmaster.Kill(syscall.SIGCONT); err != nil {
		return fmt.Errorf("continue PostgreSQL: %w", err)
	}
	if len(backends) == 0 {
		return errors.New("the system does not list the processes of PostgreSQL")
	}
	return nil
}

// children returns the processes that a process has started, by pid; none if the system
// does not list them.
func children(pid int) map[int]stat {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	found := map[int]stat{}
	for _, file := range all {
		child, ok := readStat(file)
		if !ok || child.parent != pid {
			continue
		}
		if n, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			found[n] = child
		}
	}
	return found
}

// stat holds the fields of /proc/<pid>/stat that are used here.
type stat struct {
	parent     int
	own, ended time.Duration // of the process, and of its children that have ended
}

func readStat(file string) (stat, bool) {
	content, err := os.ReadFile(file)
	if err != nil {
		return stat{}, false
	}
	// After the name, which is in parentheses and may contain anything.
	fields := strings.Fields(string(content[strings.LastIndexByte(string(content), ')')+1:]))
	if len(fields) < 15 {
		return stat{}, false
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(fields[i], 10, 64)
		return n
	}
	return stat{
		parent: int(number(1)),
		own:    time.Duration(number(11)+number(12)) * clockTick,
		ended:  time.Duration(number(13)+number(14)) * clockTick,
	}, true
}

// Resident returns the resident memory of a process in bytes, now and at its highest. It
// fails if the system does not count it, which is every system except Linux.
func Resident(pid int) (now, highest int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			now = kib << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			highest = kib << 10
		}
	}
	if now == 0 {
		return 0, 0, errors.New("the system does not count the memory of a process")
	}
	return now, highest, nil
}

// Cores returns the number of cores that this process may use, and the processor's name.
func Cores() string {
	text := fmt.Sprintf("%d cores", runtime.NumCPU())
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return text + " of " + strings.TrimSpace(value)
			}
		}
	}
	return text
}

// LoadAverage returns the machine's load averages over 1, 5 and 15 minutes, or "unknown"
// if the system does not count them. They show other load on the machine.
func LoadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if fields := strings.Fields(string(text)); err == nil && len(fields) >= 3 {
		return strings.Join(fields[:3], " ")
	}
	return "unknown"
}
