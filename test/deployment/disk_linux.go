package deployment

import "syscall"

func mount(dir, options string) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, options+",mode=755")
}

func remount(dir, options string) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, options)
}

func unmount(dir string) { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }

// usedOf returns how many bytes are used, in whole pages.
func usedOf(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Blocks-s.Bfree) * int64(s.Bsize), nil //nolint:unconvert // the types differ between architectures
}
