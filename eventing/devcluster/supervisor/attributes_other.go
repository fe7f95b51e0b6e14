//go:build !linux

package supervisor

import "syscall"

// Attributes puts the process into its own group, so that a Ctrl-C reaches only the
// supervisor, which stops processes in order. Only Linux can also end it when the
// supervisor is killed with SIGKILL.
func Attributes(_ syscall.Signal, account *Account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Setpgid:    true,
		Credential: account.Credential(),
	}
}
