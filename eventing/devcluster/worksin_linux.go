package devcluster

import (
	"os"
	"strconv"
)

// worksIn says whether a process has dir as its working directory, as a
// PostgreSQL server has its data folder.
func worksIn(pid int, dir string) bool {
	cwd, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
	return err == nil && cwd == dir
}
