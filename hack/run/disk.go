package main

import "syscall"

// freeDisk is how many bytes are free for us where dir is.
func freeDisk(dir string) (int64, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return 0, err
	}
	return int64(stat.Bavail) * int64(stat.Bsize), nil //nolint:unconvert // its type differs from system to system
}
