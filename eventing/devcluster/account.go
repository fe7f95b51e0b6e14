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
)

// Account is whom a process runs as, by number.
type Account struct {
	UID, GID uint32
}

// credential is nil for a nil account: the process runs as whoever starts it.
func (a *Account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.UID, Gid: a.GID, Groups: []uint32{a.GID}}
}

// String gives the account's name, or its number if it has none.
func (a *Account) String() string {
	uid := strconv.FormatUint(uint64(a.UID), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}

// unprivileged is the account that PostgreSQL runs as when root starts it, which
// it refuses to be; nil if we are not root.
func unprivileged() (*Account, error) {
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
		return &Account{UID: uint32(uid), GID: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody: make one, or start this as another user")
}

// owner is who owns a file.
func owner(file string) (*Account, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("find the owner of %s: the system does not say", file)
	}
	return &Account{UID: stat.Uid, GID: stat.Gid}, nil
}

// canReach says whether the account can enter a folder. It is tried, since access
// lists and mounts make a look at mode bits wrong.
func (a *Account) canReach(ctx context.Context, dir string) bool {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", ":")
	cmd.Dir = dir
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential()}
	return cmd.Run() == nil
}
