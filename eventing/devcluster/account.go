package devcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"

	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
)

// unprivileged returns the account as which PostgreSQL runs if root starts it, because
// PostgreSQL refuses to run as root; nil if this process is not root.
func unprivileged() (*supervisor.Account, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // no account is an answer: stay who we are
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil || uid == 0 {
			continue
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			continue
		}
		return &supervisor.Account{UID: uint32(uid), GID: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody: create one, or start this as another user")
}

// owner returns the account that owns a file.
func owner(file string) (*supervisor.Account, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("find the owner of %s: unknown on this system", file)
	}
	return &supervisor.Account{UID: stat.Uid, GID: stat.Gid}, nil
}

// canReach reports whether an account can enter a folder. It tries, because mode bits
// do not show access lists and mounts.
func canReach(ctx context.Context, account *supervisor.Account, dir string) bool {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", ":")
	cmd.Dir = dir
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account.Credential()}
	return cmd.Run() == nil
}
