package devcluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// TempDir creates a folder in parent, or in the system's folder for temporary files if
// parent is empty. Every account may enter it, as PostgreSQL needs if root starts it.
func TempDir(parent, prefix string) (string, error) {
	dir, err := os.MkdirTemp(parent, prefix)
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		return "", fmt.Errorf("create folder: %w", err)
	}
	return dir, nil
}

// RemoveDir removes a folder, and the data of servers started in it or in one of its
// folders if the data is elsewhere.
func RemoveDir(dir string) error {
	var errs []error
	for _, pattern := range []string{"postgres", filepath.Join("*", "postgres")} {
		links, err := filepath.Glob(filepath.Join(dir, pattern))
		errs = append(errs, err)
		for _, link := range links {
			if data, err := os.Readlink(link); err == nil {
				errs = append(errs, os.RemoveAll(data))
			}
		}
	}
	if err := errors.Join(append(errs, os.RemoveAll(dir))...); err != nil {
		return fmt.Errorf("remove folder: %w", err)
	}
	return nil
}
