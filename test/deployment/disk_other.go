//go:build !linux

package deployment

func mount(string, string) error { return errNoDisks }

func remount(string, string) error { return errNoDisks }

func unmount(string) {}

func usedOf(string) (int64, error) { return 0, errNoDisks }
