package check

import "github.com/mpool-go/mpool/bdev"

// NewTarget makes a Target of a drive, as of a real one.
func NewTarget(d *bdev.Drive) Target {
	return &driveTarget{driveSource: driveSource{d}, ticket: d.Ticket()}
}

// BlockDevices is HostDevices over other directories.
func BlockDevices(sysfs, dev string) ([]string, error) { return blockDevices(sysfs, dev) }
