package supervisor

import "syscall"

// Attributes puts the process into its own group, so that a Ctrl-C reaches only the
// supervisor, which stops processes in order; and makes the kernel send it deathSignal
// when the thread that started it ends.
func Attributes(deathSignal syscall.Signal, account *Account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Setpgid:    true,
		Pdeathsig:  deathSignal,
		Credential: account.Credential(),
	}
}
