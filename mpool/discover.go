package mpool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mpool/omf"
)

// blockDevices lists the host's block devices.
func blockDevices() ([]string, error) {
	entries, err := os.ReadDir("/sys/class/block")
	if err != nil {
		return nil, &api.Error{Code: api.EIO, Op: opActivate, Detail: "cannot list block devices", Err: err}
	}
	var list []string
	for _, e := range entries {
		// Devices without a medium, such as unused loop devices, have size 0.
		size, err := os.ReadFile(filepath.Join("/sys/class/block", e.Name(), "size"))
		if err == nil && string(size) != "0\n" {
			list = append(list, "/dev/"+e.Name())
		}
	}
	sort.Strings(list)
	return list, nil
}

// survey is a look at devices that claims none of them: others' are left alone.
type survey struct {
	name   string // of the pool that is looked for, or its UUID
	all    bool   // all devices of the host are looked at
	looked int
	found  []sighting
	reason error    // the most telling reason why a device shows no superblock
	blind  []error  // why devices could not be looked at
	broken []string // devices that had superblocks of which none is whole
}

// sighting is a device with a superblock.
type sighting struct {
	path string
	sb   *omf.Superblock // the newest of its copies
}

// lookFor is how long one of all the devices of the host may take to answer:
// one that hangs is not to hang whoever looks for a pool elsewhere.
const lookFor = 5 * time.Second

// look adds a device. It fails with the context only.
func (s *survey) look(ctx context.Context, path string, opt Options) error {
	within := ctx
	if s.all {
		var cancel context.CancelFunc
		within, cancel = opt.Sched.WithTimeout(ctx, lookFor)
		defer cancel()
	}
	sb, err := lookAt(within, path, opt)
	switch code := api.CodeOf(err); {
	case ctx.Err() != nil && err != nil:
		return err
	case err == nil:
		s.looked++
		s.found = append(s.found, sighting{path, sb})
	case code == api.ECORRUPT, errors.Is(err, omf.ErrNoSuperblock), errors.Is(err, omf.ErrVersion):
		s.looked++
		s.because(err)
		if code == api.ECORRUPT {
			s.broken = append(s.broken, path)
		}
	default:
		s.unseen(err)
	}
	return nil
}

// lookAt returns the newest superblock of a device.
func lookAt(ctx context.Context, path string, opt Options) (*omf.Superblock, error) {
	d, err := opt.Open(ctx, path, true)
	if err != nil {
		return nil, openError(opActivate, path, err)
	}
	s, err := readSuperblocks(ctx, d)
	if err == nil && s.newest == nil {
		err = superblockError(opActivate, path, s.err)
	}
	if cerr := closeDrive(opt.Sched, d); err == nil {
		err = cerr
	}
	return s.newest, ioError(opActivate, d, err)
}

// unseen notes a device that could not be looked at.
func (s *survey) unseen(err error) {
	s.blind = append(s.blind, err)
	if !s.all {
		s.because(err)
	}
}

// because keeps the first reason that is not mere absence.
func (s *survey) because(err error) {
	if s.reason == nil || api.CodeOf(s.reason) == api.ENOENT {
		s.reason = err
	}
}

// unseenText says which devices could not be looked at, or "".
func (s *survey) unseenText() string {
	const most = 4 // are named
	if len(s.blind) == 0 {
		return ""
	}
	var names []string
	for _, err := range s.blind {
		var e *api.Error
		if len(names) < most && errors.As(err, &e) {
			names = append(names, fmt.Sprintf("%s: %v", e.Device, reasonOf(e)))
		}
	}
	more := ""
	if n := len(s.blind) - len(names); n > 0 {
		more = fmt.Sprintf(", and %d more", n)
	}
	return fmt.Sprintf("; %d could not be looked at (%s%s)", len(s.blind), strings.Join(names, ", "), more)
}

// clues says of which devices nothing is known that may be the pool's, or "".
func (s *survey) clues() string {
	text := s.unseenText()
	if len(s.broken) > 0 {
		text += fmt.Sprintf("; no superblock copy is whole on %s", strings.Join(s.broken, ", "))
	}
	return text
}

// reasonOf is an error's reason without what it was tried on.
func reasonOf(e *api.Error) string {
	if e.Detail != "" {
		return e.Detail
	}
	return fmt.Sprint(e.Err)
}

// newest returns the newest superblock of a pool over all devices, or nil.
func (s *survey) newest(pool uuid.UUID) *omf.Superblock {
	var best *omf.Superblock
	for _, f := range s.found {
		if f.sb.Pool == pool && (best == nil || f.sb.Generation > best.Generation) {
			best = f.sb
		}
	}
	return best
}

// choose returns the newest superblock of the pool that is looked for. What
// counts is the name there: an older copy may have a former one.
func (s *survey) choose() (*omf.Superblock, error) {
	var chosen *omf.Superblock
	var at string
	for _, f := range s.found {
		sb := s.newest(f.sb.Pool)
		switch {
		case sb.Name != s.name && sb.Pool.String() != s.name:
			s.because(&api.Error{
				Code: api.ENOENT, Op: opActivate, Device: f.path,
				Detail: fmt.Sprintf("the device belongs to pool %q, not %q", sb.Name, s.name),
			})
		case chosen == nil:
			chosen, at = sb, f.path
		case chosen.Pool != sb.Pool:
			return nil, &api.Error{
				Code: api.ESTATE, Op: opActivate, Device: f.path,
				Detail: fmt.Sprintf("%s carries another pool of the same name; take its UUID, or name the devices", at),
			}
		}
	}
	if chosen != nil {
		return chosen, nil
	}
	if s.reason == nil || s.looked+len(s.blind) > 1 && api.CodeOf(s.reason) == api.ENOENT {
		where := "among the devices named"
		if s.all {
			where = "among the host's block devices; if it lies in regular files, name them"
		}
		return nil, api.Errorf(api.ENOENT, opActivate, "no pool %q %s%s", s.name, where, s.unseenText())
	}
	return nil, s.reason
}

// members returns the devices that carry drives of a pool by the newest
// superblock, in the order of the drive table. Two copies of one drive are
// refused.
func (s *survey) members(sb *omf.Superblock) ([]string, error) {
	var paths []string
	for _, e := range sb.Drives {
		if e.State != omf.DriveOnline {
			continue
		}
		at := ""
		for _, f := range s.found {
			switch {
			case f.sb.Pool != sb.Pool || f.sb.Drive != e.UUID:
			case at != "":
				return nil, twice(e, at, f.path)
			default:
				at = f.path
				paths = append(paths, f.path)
			}
		}
	}
	return paths, nil
}

// twice makes the error of two devices that are one drive.
func twice(e omf.Drive, a, b string) error {
	return &api.Error{
		Code: api.ESTATE, Op: opActivate, Device: b,
		Detail: fmt.Sprintf("%s and %s both carry %s: two paths to one device, or one is a copy; give one of them only", a, b, describeDrive(e)),
	}
}
