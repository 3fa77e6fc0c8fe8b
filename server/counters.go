package server

import (
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/ioctl"
)

// opCounters counts one operation.
type opCounters struct {
	count, errors, bytes, nanos atomic.Uint64
	buckets                     [ioctl.NumBuckets]atomic.Uint64
}

// counters counts the operations of the daemon or of one pool.
type counters [ioctl.NumOps]opCounters

func (c *counters) add(op ioctl.Op, took time.Duration, bytes uint64, failed bool) {
	o := &c[op]
	o.count.Add(1)
	if failed {
		o.errors.Add(1)
	}
	if bytes > 0 {
		o.bytes.Add(bytes)
	}
	o.nanos.Add(uint64(max(took, 0)))
	o.buckets[ioctl.Bucket(took)].Add(1)
}

// page returns the counters of operations from first on, those ever asked for,
// and where the next page begins, or 0.
func (c *counters) page(first uint16) (list []ioctl.OpCounters, next uint16) {
	return c.upTo(int(first), ioctl.StatOpsPerPage)
}

// upTo is page with pages of a given size.
func (c *counters) upTo(first, most int) (list []ioctl.OpCounters, next uint16) {
	for i := first; i < len(c); i++ {
		o := &c[i]
		if o.count.Load() == 0 {
			continue
		}
		if len(list) == most {
			return list, uint16(i)
		}
		s := ioctl.OpCounters{
			Op: ioctl.Op(i), Count: o.count.Load(), Errors: o.errors.Load(), Bytes: o.bytes.Load(),
			Total: time.Duration(o.nanos.Load()),
		}
		for b := range s.Buckets {
			s.Buckets[b] = o.buckets[b].Load()
		}
		list = append(list, s)
	}
	return list, 0
}
