package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// peakMemory returns the peak memory of a process, in bytes; 0 if the process has
// ended.
func peakMemory(pid int) int64 {
	return procField(pid, "status", "VmHWM:")
}

// treeMemory returns the current memory of a process and its children, in
// bytes, with shared memory counted once.
func treeMemory(pid int) int64 {
	bytes := procField(pid, "smaps_rollup", "Pss:")
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return bytes
	}
	for child := range strings.FieldsSeq(string(children)) {
		if id, err := strconv.Atoi(child); err == nil {
			bytes += treeMemory(id)
		}
	}
	return bytes
}

// procField returns a field in kB of a file in /proc.
func procField(pid int, file, field string) int64 {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0
	}
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), field); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return 0
			}
			return kb << 10
		}
	}
	return 0
}
