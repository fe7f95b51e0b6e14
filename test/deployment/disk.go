package deployment

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

const diskSize = "size=2g"

// errNoDisks means that disks cannot be filled.
var errNoDisks = errors.New("filling a disk needs root on Linux, to mount small ones")

// mountDisks mounts a disk for the database and for each server of the streams, if
// that is possible here: in memory, because only its size matters.
func (d *Deployment) mountDisks() error {
	disks := map[string]string{"postgres": filepath.Join(d.cfg.Dir, "database")}
	for i := range replicas {
		name := fmt.Sprintf("nats-%d", i+1)
		disks[name] = filepath.Join(d.cfg.Dir, name)
	}
	for name, dir := range disks {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := mount(dir, diskSize); err != nil {
			return nil //nolint:nilerr // there are no disks then; FillDisk reports it
		}
		d.disks[name] = dir
	}
	return nil
}

// Disks returns the names of the servers whose disks can be filled.
func Disks() []string { return []string{"postgres", "nats-1", "nats-2", "nats-3"} }

// FillDisk fills the disk of a server.
func (d *Deployment) FillDisk(name string) error {
	dir, ok := d.disks[name]
	if !ok {
		return errNoDisks
	}
	used, err := usedOf(dir)
	if err != nil {
		return err
	}
	return remount(dir, fmt.Sprintf("size=%d", used))
}

// FreeDisk frees the space. A NATS server whose disk was full has disabled its
// streams until it is restarted, so FreeDisk restarts it, as an operator would.
func (d *Deployment) FreeDisk(name string) error {
	dir, ok := d.disks[name]
	if !ok {
		return errNoDisks
	}
	if err := remount(dir, diskSize); err != nil {
		return err
	}
	if name == "postgres" {
		return nil
	}
	return d.Signal(name, syscall.SIGTERM)
}

// unmountDisks unmounts the disks.
func (d *Deployment) unmountDisks() {
	for _, dir := range d.disks {
		unmount(dir)
	}
}
