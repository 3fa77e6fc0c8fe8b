package sim

import (
	"math/rand/v2"
	"time"

	"github.com/mpool-go/mpool/bdev"
)

// Effect is what a fault does beside its error and its delay.
type Effect uint8

// The effects.
const (
	EffectNone      Effect = iota
	EffectLost             // write or flush: acknowledged, never done
	EffectMisdirect        // write: acknowledged, done Shift bytes away
	EffectFlip             // read or write: one random bit of the data is flipped on the way
)

func (e Effect) String() string {
	switch e {
	case EffectNone:
		return "none"
	case EffectLost:
		return "lost"
	case EffectMisdirect:
		return "misdirect"
	case EffectFlip:
		return "flip"
	default:
		return "unknown"
	}
}

// Fault says which operations go wrong, and how. An operation matches when its
// code and range do; the first Skip matches pass unharmed, of the others each
// is hit with the given probability, until Count were hit. Operations match in
// the order of their starts.
type Fault struct {
	Code        bdev.OpCode // 0: any
	From, To    int64       // bytes; hits what overlaps [From, To); 0, 0: anywhere; flushes lie nowhere
	Skip        uint64      // matches that pass first
	Count       uint64      // matches hit at most; 0: all from then on
	Probability float64     // of being hit; 0: certain

	Err    error         // what the operation ends with, such as syscall.EIO; nil: success
	Delay  time.Duration // added to the operation's time, in simulation
	Effect Effect
	Shift  int64 // EffectMisdirect: bytes, a multiple of 4096; wraps at the disk's end
}

// fault is a fault with its counters.
type fault struct {
	Fault
	matched, hits uint64
}

// Inject adds faults. When several match, an operation gets the first error
// and the first effect among them, and all delays.
func (d *Disk) Inject(faults ...Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range faults {
		d.faults = append(d.faults, &fault{Fault: f})
	}
}

// Heal removes all faults.
func (d *Disk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = nil
}

// FaultHits returns how often each injected fault hit, in the order of Inject.
func (d *Disk) FaultHits() []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	hits := make([]uint64, len(d.faults))
	for i, f := range d.faults {
		hits[i] = f.hits
	}
	return hits
}

// verdict is what all faults together do to one operation.
type verdict struct {
	err    error
	delay  time.Duration
	effect Effect
	shift  int64
}

// judgeLocked asks the faults about an operation that starts.
//
// +checklocks:d.mu
func (d *Disk) judgeLocked(o *bdev.Op, rng *rand.Rand) verdict {
	var v verdict
	for _, f := range d.faults {
		if !f.hit(o, rng) {
			continue
		}
		v.delay += f.Delay
		if v.err == nil {
			v.err = f.Err
		}
		if v.effect == EffectNone {
			v.effect, v.shift = f.Effect, f.Shift
		}
	}
	return v
}

func (f *fault) hit(o *bdev.Op, rng *rand.Rand) bool {
	if f.Code != 0 && f.Code != o.Code {
		return false
	}
	if f.From != 0 || f.To != 0 {
		if o.Code == bdev.OpFlush || o.Offset >= f.To || o.Offset+o.Size() <= f.From {
			return false
		}
	}
	f.matched++
	if f.matched <= f.Skip || f.Count != 0 && f.hits >= f.Count {
		return false
	}
	if f.Probability != 0 && rng.Float64() >= f.Probability {
		return false
	}
	f.hits++
	return true
}
