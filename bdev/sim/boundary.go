package sim

import (
	"fmt"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// Phase is a moment of an operation.
type Phase uint8

// The phases. A cut while an operation is under way needs no phase of its own:
// what it may leave of a write or a flush, a cut at the operation's end or
// start may leave too.
const (
	PhaseStart Phase = iota + 1 // nothing of it has happened
	PhaseEnd                    // it has happened; nobody was told
)

func (p Phase) String() string {
	switch p {
	case PhaseStart:
		return "start"
	case PhaseEnd:
		return "end"
	default:
		return "unknown"
	}
}

// Boundary is the start or the end of an operation.
type Boundary struct {
	N     uint64 // rising number on this open of the disk, from 1
	Disk  *Disk
	Op    *bdev.Op
	Phase Phase
	Err   error // PhaseEnd: what the operation will end with
}

// String returns the boundary as one line of a trace.
func (b Boundary) String() string {
	s := fmt.Sprintf("%s %d %v %v %d+%d", b.Disk.opts.Name, b.N, b.Phase, b.Op.Code, b.Op.Offset, b.Op.Size())
	if b.Err != nil {
		s += ": " + b.Err.Error()
	}
	return s
}

// Cutter stops the machine at one boundary among those of all disks that were
// opened with its OnIO. With At 0 it only counts. It is for one simulation or
// one goroutine.
type Cutter struct {
	Sched *sched.Sched // nil: no simulation; every later operation gets ENODEV
	At    uint64       // the boundary to stop at, from 1

	seen uint64
	at   Boundary
}

// OnIO is for OpenOptions.OnIO.
func (c *Cutter) OnIO(b Boundary) (stop bool) {
	c.seen++
	if c.At == 0 || c.seen < c.At {
		return false
	}
	if c.seen == c.At {
		c.at = b
	}
	if c.Sched != nil {
		c.Sched.Cut()
	}
	return true
}

// Seen returns how many boundaries were passed.
func (c *Cutter) Seen() uint64 { return c.seen }

// Stopped returns the boundary at which the machine stopped, if it did.
func (c *Cutter) Stopped() (b Boundary, ok bool) { return c.at, c.at.N != 0 }
