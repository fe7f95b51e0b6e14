//go:build !linux

package functionstest

import (
	"context"
	"errors"
	"os/exec"
)

func withOwnHost(*exec.Cmd) {}

// ownHostPossible returns the reason why a process cannot have a host name of its
// own.
func ownHostPossible(context.Context, string) error {
	return errors.New("only Linux has host names of a process")
}

func beHost(string) error { return errors.New("only Linux has host names of a process") }
