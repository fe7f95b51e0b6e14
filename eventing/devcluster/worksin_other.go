//go:build !linux

package devcluster

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// worksIn reports whether a process is a PostgreSQL server that was started with the
// data folder dir.
func worksIn(pid int, dir string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), "postgres") && strings.Contains(string(out), dir)
}
