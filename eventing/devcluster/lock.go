package devcluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// LockedError says that another process works in the folder.
type LockedError struct {
	Dir string
	PID int // 0 if it is not known
}

// Error says who works there and what to do.
func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("another `make run` works in %s: end it first, or use another folder with --dir", e.Dir)
	}
	return fmt.Sprintf("another `make run` (pid %d) works in %s: end it first (kill %d), or use another folder with --dir", e.PID, e.Dir, e.PID)
}

// Lock keeps a folder for one process.
type Lock struct {
	file *os.File
}

// AcquireLock takes the folder, which is made if missing. What a process left
// behind that was killed does not count: the system gives a dead process's lock
// back. The error is a [*LockedError] if a living one has it.
func AcquireLock(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	name := filepath.Join(dir, "lock")
	for {
		file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("lock folder: %w", err)
		}
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			locked := &LockedError{Dir: dir, PID: readPID(name)}
			_ = file.Close()
			return nil, locked
		}
		if err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("lock folder: %w", err)
		}
		if !isFile(file, name) {
			_ = file.Close() // its last owner removed it while we opened it
			continue
		}
		if err := writePID(file); err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("lock folder: %w", err)
		}
		return &Lock{file: file}, nil
	}
}

// Release gives the folder back and removes the lock's file.
func (l *Lock) Release() {
	_ = os.Remove(l.file.Name())
	_ = l.file.Close()
}

func isFile(file *os.File, name string) bool {
	ours, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(name)
	return err == nil && os.SameFile(ours, there)
}

func writePID(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func readPID(name string) int {
	data, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return pid
}
