package supervisor

import (
	"os/user"
	"strconv"
	"syscall"
)

// Account is the user and group that a process runs as, by number.
type Account struct {
	UID, GID uint32
}

// Credential returns nil for a nil account: the process runs as its supervisor's
// account.
func (a *Account) Credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.UID, Gid: a.GID, Groups: []uint32{a.GID}}
}

// String returns the name of the account, or its number if it has none.
func (a *Account) String() string {
	uid := strconv.FormatUint(uint64(a.UID), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}
