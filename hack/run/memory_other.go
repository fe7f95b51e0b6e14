//go:build !linux

package main

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// peakMemory returns the current memory of a process, in bytes; 0 if the process
// has ended. The maximum of repeated calls approximates the peak.
func peakMemory(pid int) int64 {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ps", "-o", "rss=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return 0
	}
	kb, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return 0
	}
	return kb << 10
}

// treeMemory returns the memory of the process alone: the memory that its
// children share with it cannot be determined here.
func treeMemory(pid int) int64 { return peakMemory(pid) }
