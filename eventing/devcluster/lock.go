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

// lockedError reports that another process uses the folder.
type lockedError struct {
	dir string
	pid int // 0 if unknown
}

// Error returns the process that uses the folder, and what to do.
func (e *lockedError) Error() string {
	if e.pid == 0 {
		return fmt.Sprintf("another `make run` uses %s: end it first, or use another folder with --dir", e.dir)
	}
	return fmt.Sprintf("another `make run` (pid %d) uses %s: end it first (kill %d), or use another folder with --dir", e.pid, e.dir, e.pid)
}

// lock reserves a folder for one process.
type lock struct {
	file *os.File
}

// acquireLock locks the folder, which is created if missing. The lock of a process that was
// killed does not count: the system releases it. The error is a [*lockedError] if a running
// process holds the lock.
func acquireLock(dir string) (*lock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create folder: %w", err)
	}
	name := filepath.Join(dir, "lock")
	for {
		file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("lock folder: %w", err)
		}
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			locked := &lockedError{dir: dir, pid: readPID(name)}
			_ = file.Close()
			return nil, locked
		}
		if err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("lock folder: %w", err)
		}
		if !isFile(file, name) {
			_ = file.Close() // its last owner removed the file after it was opened here
			continue
		}
		if err := writePID(file); err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("lock folder: %w", err)
		}
		return &lock{file: file}, nil
	}
}

// release unlocks the folder and removes the lock's file.
func (l *lock) release() {
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
