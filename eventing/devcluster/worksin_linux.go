package devcluster

import (
	"os"
	"strconv"
)

// worksIn reports whether dir is the working directory of a process, like the data
// folder is that of a PostgreSQL server.
func worksIn(pid int, dir string) bool {
	cwd, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
	return err == nil && cwd == dir
}
