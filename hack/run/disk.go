package main

import (
	"syscall"

	"github.com/tandem-fn/tandem/eventing/devcluster"
)

const (
	// leastDisk is how much must be free at the start: PostgreSQL alone writes
	// about 60 MB for an empty database.
	leastDisk = 256 << 20

	// The disk counts as full below fullDisk, and no longer above roomyDisk.
	fullDisk  = 16 << 20
	roomyDisk = 64 << 20
)

// freeDisk returns how many bytes are available to this user on the disk of dir.
func freeDisk(dir string) (int64, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return 0, err
	}
	return int64(stat.Bavail) * int64(stat.Bsize), nil //nolint:unconvert // its type differs from system to system
}

// disk observes the disk that a run writes to.
type disk struct {
	dir  string
	say  func(format string, args ...any)
	full bool
}

// look reports when the disk is full and when it no longer is. Then it restarts the
// NATS servers that this run started: a stream that could not be written is disabled
// until its server restarts. PostgreSQL continues by itself.
func (d *disk) look(servers []*devcluster.NATS) {
	free, err := freeDisk(d.dir)
	switch {
	case err != nil:
	case !d.full && free < fullDisk:
		d.full = true
		d.say("the disk of %s is full, %d MB are free: free some space, and the run continues; no acknowledged event is lost", d.dir, free>>20)
	case d.full && free > roomyDisk:
		d.full = false
		if len(servers) == 0 {
			d.say("the disk has free space again")
			return
		}
		d.say("the disk has free space again; restarting NATS, because it disables a stream after a failed write")
		for _, n := range servers {
			_ = n.Process().Kill(syscall.SIGTERM) // a server that has ended is restarted in any case
		}
	}
}
