package functionstest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// withOwnHost runs a process in a UTS namespace, so that it can have a host name
// of its own. If it does not run as root, it also uses a user namespace in which
// it is root.
func withOwnHost(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUTS}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
}

// ownHostPossible returns the reason why a process cannot have a host name of its
// own.
func ownHostPossible(ctx context.Context, binary string) error {
	cmd := exec.CommandContext(ctx, binary, "-test.run=^$")
	cmd.Env = changed(os.Environ(), "GORACE=atexit_sleep_ms=0")
	withOwnHost(cmd)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("this process may not make a namespace: %w", err)
	}
	return nil
}

// beHost sets the host name and executes the process again, so that code that runs
// before main sees it, too.
func beHost(host string) error {
	if err := syscall.Sethostname([]byte(host)); err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	var env []string
	for _, setting := range os.Environ() {
		if !strings.HasPrefix(setting, hostVariable+"=") {
			env = append(env, setting)
		}
	}
	return syscall.Exec(binary, os.Args, env)
}
