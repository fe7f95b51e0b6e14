package main

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// burn uses d of processor time, however many threads compete for the cores: the
// thread's clock only advances while the thread runs.
func burn(d time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin, err := threadTime()
	for now := begin; err == nil && now-begin < d; {
		now, err = threadTime()
	}
	return err
}

func threadTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}
