package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of processor times in /proc: 100 a second on every
// Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// cpu gives the processor time that this process and all of the server's have
// used, and whether the system tells, which is only Linux.
func (t *trial) cpu() (client, server time.Duration, known bool) {
	own, ok := readStat("/proc/self/stat")
	if !ok {
		return 0, 0, false
	}
	server, known = t.server.cpu()
	return own.own, server, known
}

// cpu gives the processor time that all of the server's processes have used.
func (s *server) cpu() (used time.Duration, known bool) {
	postmaster := s.postgres.Process().Pid()
	main, ok := readStat(fmt.Sprintf("/proc/%d/stat", postmaster))
	if !ok {
		return 0, false
	}
	used = main.own + main.ended
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, false
	}
	for _, file := range all {
		if child, ok := readStat(file); ok && child.parent == postmaster {
			used += child.own
		}
	}
	return used, true
}

// stat is the part of /proc/<pid>/stat that counts here.
type stat struct {
	parent     int
	own, ended time.Duration // of the process, and of its children that have ended
}

func readStat(file string) (stat, bool) {
	content, err := os.ReadFile(file)
	if err != nil {
		return stat{}, false
	}
	// After the name, which is in parentheses and may hold anything.
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

// cores says on how many processors this runs, which the server inherits.
func cores() string {
	text := fmt.Sprintf("%d core(s)", runtime.NumCPU())
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return text + ", " + strings.TrimSpace(value)
			}
		}
	}
	return text
}
