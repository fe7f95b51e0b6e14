//go:build !linux

package main

import (
	"errors"
	"time"
)

func burn(time.Duration) error {
	return errors.New("TANDEM_BENCH_BURN: a thread's processor time is read on Linux only")
}
