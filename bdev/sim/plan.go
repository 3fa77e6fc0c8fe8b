package sim

import (
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/mpool-go/mpool/bdev"
)

// PlanOptions are what DrawFaults draws from.
type PlanOptions struct {
	Faults int    // how many; default 1
	Within uint64 // they begin within so many operations of their kind; default 50
	Size   int64  // bytes of the disk: some faults hit a range only; 0: none does
	Lies   bool   // also lost, misdirected and flipped writes, flipped reads, lost flushes
}

// DrawFaults draws a plan: errors of reads, writes and flushes, a full disk,
// stalls; once, a few times, now and then, or from some moment on.
func DrawFaults(rng *rand.Rand, o PlanOptions) []Fault {
	if o.Faults == 0 {
		o.Faults = 1
	}
	if o.Within == 0 {
		o.Within = 50
	}
	plan := make([]Fault, o.Faults)
	for i := range plan {
		f := drawKind(rng, o.Lies)
		f.Skip = rng.Uint64N(o.Within)
		switch rng.IntN(4) {
		case 0, 1:
			f.Count = 1
		case 2:
			f.Count = 1 + rng.Uint64N(5)
		case 3:
			if rng.IntN(2) == 0 {
				f.Probability = [...]float64{0.02, 0.2, 0.5}[rng.IntN(3)]
			}
		}
		if o.Size > 0 && f.Code != bdev.OpFlush && rng.IntN(3) == 0 {
			pages := o.Size / pageSize
			f.From = rng.Int64N(pages) * pageSize
			f.To = f.From + (1+rng.Int64N(pages/4+1))*pageSize
		}
		plan[i] = f
	}
	return plan
}

func drawKind(rng *rand.Rand, lies bool) Fault {
	kinds := 6
	if lies {
		kinds = 11
	}
	switch rng.IntN(kinds) {
	case 0:
		return Fault{Code: bdev.OpRead, Err: syscall.EIO}
	case 1:
		return Fault{Code: bdev.OpWrite, Err: syscall.EIO}
	case 2:
		return Fault{Code: bdev.OpWrite, Err: syscall.ENOSPC}
	case 3:
		return Fault{Code: bdev.OpFlush, Err: syscall.EIO}
	case 4:
		return Fault{Delay: time.Duration(rng.Int64N(int64(2 * time.Second)))}
	case 5:
		return Fault{Err: syscall.ENODEV}
	case 6:
		return Fault{Code: bdev.OpWrite, Effect: EffectLost}
	case 7:
		return Fault{Code: bdev.OpWrite, Effect: EffectMisdirect, Shift: (1 + rng.Int64N(64)) * pageSize}
	case 8:
		return Fault{Code: bdev.OpWrite, Effect: EffectFlip}
	case 9:
		return Fault{Code: bdev.OpRead, Effect: EffectFlip}
	default:
		return Fault{Code: bdev.OpFlush, Effect: EffectLost}
	}
}
