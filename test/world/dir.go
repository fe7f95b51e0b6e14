package world

import (
	"fmt"
	"os"
	"path/filepath"
)

// MakeDir makes a folder that PostgreSQL can enter though it runs as somebody else.
func MakeDir() (string, error) {
	dir, err := os.MkdirTemp("", "tandem-world-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		return "", fmt.Errorf("make a folder: %w", err)
	}
	return dir, nil
}

// CleanUp removes a folder, and the databases' data where they lie elsewhere.
func CleanUp(dir string) error {
	for _, link := range []string{filepath.Join(dir, "postgres"), filepath.Join(dir, "database", "postgres"), filepath.Join(dir, "standby", "postgres")} {
		if data, err := os.Readlink(link); err == nil {
			if err := os.RemoveAll(data); err != nil {
				return fmt.Errorf("remove data: %w", err)
			}
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove data: %w", err)
	}
	return nil
}
