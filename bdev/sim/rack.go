package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// Rack is the disks of one host: they lose power together. Their names are
// their paths.
type Rack []*Disk

// Paths returns the disks' names.
func (r Rack) Paths() []string {
	paths := make([]string, len(r))
	for i, d := range r {
		paths[i] = d.opts.Name
	}
	return paths
}

// Disk returns the disk of a name, or nil.
func (r Rack) Disk(path string) *Disk {
	for _, d := range r {
		if d.opts.Name == path {
			return d
		}
	}
	return nil
}

// Opener returns a function that opens the rack's disks by path, each with the
// given options. It gives ENOENT for what the rack does not hold.
func (r Rack) Opener(s *sched.Sched, o OpenOptions) func(ctx context.Context, path string, readOnly bool) (*bdev.Drive, error) {
	return func(_ context.Context, path string, readOnly bool) (*bdev.Drive, error) {
		d := r.Disk(path)
		if d == nil {
			return nil, fmt.Errorf("open %s: %w", path, syscall.ENOENT)
		}
		o := o
		o.ReadOnly = readOnly
		return Open(s, d, o)
	}
}

// Survivor returns a survivor of each disk, and what happened to each.
func (r Rack) Survivor(rng *rand.Rand, o CutOptions) (Rack, []Cut) {
	after, cuts := make(Rack, len(r)), make([]Cut, len(r))
	for i, d := range r {
		after[i], cuts[i] = d.Survivor(rng, o)
	}
	return after, cuts
}

// PowerCut cuts the power of all disks and brings it back.
func (r Rack) PowerCut(rng *rand.Rand, o CutOptions) []Cut {
	cuts := make([]Cut, len(r))
	for i, d := range r {
		cuts[i] = d.PowerCut(rng, o)
	}
	return cuts
}

// Kill ends the process that has the disks open, without a power cut.
func (r Rack) Kill(rng *rand.Rand) {
	for _, d := range r {
		d.Kill(rng)
	}
}

// Clone returns copies of the disks; see [Disk.Clone].
func (r Rack) Clone() Rack {
	n := make(Rack, len(r))
	for i, d := range r {
		n[i] = d.Clone()
	}
	return n
}
