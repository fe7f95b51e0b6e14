package telemetry

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// garbagePercent is the garbage, as a percentage of the live heap, at which it is
	// collected. The live heap is so small that with Go's default of 100 the collector
	// would use an eighth of all CPU time.
	garbagePercent = 400

	// limitShare is the heap, as a percentage of the container's memory, above which
	// garbage is collected more eagerly.
	limitShare = 75

	limitFile = "/sys/fs/cgroup/memory.max"
)

// TuneCollector makes garbage collection less frequent than Go's default, but frequent
// enough to stay below the container's memory limit. GOGC and GOMEMLIMIT take
// precedence. It applies to the whole process.
func TuneCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	LimitHeap(math.MaxInt64)
}

// LimitHeap makes garbage collection more eager when the heap reaches this many bytes, or
// approaches the container's memory limit. GOMEMLIMIT takes precedence. It applies to the
// whole process.
func LimitHeap(bytes int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if text, err := os.ReadFile(limitFile); err == nil {
		bytes = min(bytes, heapLimit(string(text)))
	}
	debug.SetMemoryLimit(bytes)
}

// heapLimit returns the limit of the heap for the memory limit of the container, as
// written in cgroup files.
func heapLimit(container string) int64 {
	bytes, err := strconv.ParseInt(strings.TrimSpace(container), 10, 64)
	if err != nil || bytes <= 0 { // "max" means no limit
		return math.MaxInt64
	}
	return bytes / 100 * limitShare
}
