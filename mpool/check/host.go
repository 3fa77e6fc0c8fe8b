package check

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mpool-go/mpool/api"
)

// HostDevices lists the paths of the host's block devices that can carry a pool:
// those with a medium, but for those that another block device lies on, as a
// path of a multipath device. The error is EIO.
func HostDevices() ([]string, error) { return blockDevices("/sys/class/block", "/dev") }

func blockDevices(sysfs, dev string) ([]string, error) {
	entries, err := os.ReadDir(sysfs)
	if err != nil {
		return nil, &api.Error{Code: api.EIO, Detail: "the host's block devices cannot be listed", Err: err}
	}
	var list []string
	for _, e := range entries {
		dir := filepath.Join(sysfs, e.Name())
		// A device without a medium, such as an unused loop device, has size 0.
		size, err := os.ReadFile(filepath.Join(dir, "size"))
		if err != nil || strings.TrimSpace(string(size)) == "0" {
			continue
		}
		// Who cannot be asked is looked at.
		if holders, err := os.ReadDir(filepath.Join(dir, "holders")); err == nil && len(holders) > 0 {
			continue
		}
		// The kernel writes a slash in a name as '!'.
		list = append(list, filepath.Join(dev, strings.ReplaceAll(e.Name(), "!", "/")))
	}
	slices.Sort(list)
	return list, nil
}
