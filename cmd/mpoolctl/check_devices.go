package main

import (
	"context"
	"io/fs"
	"os"
	"strings"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mpool/check"
)

// offlineDevices returns the devices that the arguments of a verb name which
// works without the daemon: devices and files, or a pool by name or UUID with the
// devices or files to look for it on; with none, on the host's block devices.
// EBUSY for a pool that is active.
func (a *app) offlineDevices(ctx context.Context, args []string) ([]string, error) {
	if isDevice(args[0]) {
		return absolutePaths(args), nil
	}
	if err := a.notActive(ctx, args[0]); err != nil {
		return nil, err
	}
	candidates := absolutePaths(args[1:])
	if len(candidates) == 0 {
		var err error
		if candidates, err = check.HostDevices(); err != nil {
			return nil, err
		}
	}
	devices, unread, err := check.Find(ctx, args[0], candidates, check.Options{})
	a.noteUnread(unread, len(candidates))
	return devices, err
}

// isDevice says whether an argument is a path: it has a slash, or it is the name
// of a file or device that is there.
func isDevice(arg string) bool {
	if strings.Contains(arg, "/") {
		return true
	}
	info, err := os.Stat(arg)
	return err == nil && info.Mode()&fs.ModeType&^fs.ModeDevice == 0
}

// notActive refuses a pool that is active in the daemon, if one answers.
func (a *app) notActive(ctx context.Context, name string) error {
	var info api.PoolInfo
	err := a.withDaemon(ctx, func(d daemon) (err error) {
		info, err = findPool(ctx, d, name)
		return err
	})
	if err != nil {
		return nil //nolint:nilerr // no daemon has it: the drives themselves will say who has them
	}
	return &api.Error{Code: api.EBUSY, Detail: "pool " + info.Name + " is active: deactivate it, then try again with " + paths(info.Drives)}
}

// paths lists the paths of drives, as far as they are there, as arguments.
func paths(drives []api.DriveInfo) string {
	var list []string
	for _, d := range drives {
		if d.Path != "" {
			list = append(list, d.Path)
		}
	}
	return strings.Join(list, " ")
}

// noteUnread says how many devices could not be looked at.
func (a *app) noteUnread(unread []check.Unread, all int) {
	if len(unread) > 0 {
		a.note("%d of %s could not be looked at: %s", len(unread), plural(all, "device"), oneLine(unread[0].Err.Error()))
	}
}
