package client

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// A tag is of one sequence for the socket and all rings: the number of the ring,
// 0 for the socket, and of the request's slot in it are within the tag, so that
// an error, which comes on the socket, finds both. What is above them counts
// from a number that nobody can guess.
//
//	63                           16   12      0
//	+-----------------------------+----+-------+
//	|            count            |ring|  slot |
//	+-----------------------------+----+-------+
const (
	slotBits  = 12
	countFrom = 16
)

func tagOf(count uint64, ring, slot int) uint64 {
	return count<<countFrom | uint64(ring)<<slotBits | uint64(slot)
}

func ringOf(tag uint64) int { return int(tag >> slotBits & (1<<(countFrom-slotBits) - 1)) }
func slotOf(tag uint64) int { return int(tag & (1<<slotBits - 1)) }

// ringEnd is a ring of a link, from the client's side.
type ringEnd struct {
	l      *link
	end    *ring.Client
	number uint16 // the daemon's
	index  int    // the link's, from 1
	count  uint64 // of the last tag
}

// tag returns the tag of the next request in a slot.
func (r *ringEnd) tag(slot int) uint64 {
	r.count++
	return tagOf(r.count, r.index, slot)
}

// ringUser is who uses a ring of a link.
type ringUser interface {
	// failed ends the request that an error message answers, whose buffer it
	// keeps if it returns true.
	failed(h ioctl.Header, buf *[ioctl.MaxMessage]byte, n int) bool
	// die ends all requests: there will be no answers.
	die(cause error)
}

// askRing lets the daemon make a ring of a region, which no ring used before it
// was zeroed.
func (l *link) askRing(ctx context.Context, mem *region, entries int) (ringEnd, error) {
	w := mem.window(ring.Size(entries))
	end, err := ring.NewClient(mem.mem[:w.Length:w.Length], entries)
	if err != nil {
		return ringEnd{}, fmt.Errorf("make a ring: %w", err)
	}
	reply := &ioctl.RingReply{}
	ask := &ioctl.RingAsk{Version: ring.Version, Arena: w.Arena, Offset: w.Offset, Entries: uint32(entries)}
	if err := l.do(ctx, ioctl.OpRing, ask, reply); err != nil {
		return ringEnd{}, err
	}
	return ringEnd{l: l, end: end, number: reply.Ring, count: rand.Uint64()}, nil
}

// close lets the daemon give up a ring, in which nothing is under way.
func (r *ringEnd) close(ctx context.Context) error {
	return r.l.do(ctx, ioctl.OpRingClose, &ioctl.RingClose{Ring: r.number}, &ioctl.Empty{})
}

// addRing gives a ring's user an index. It fails if the connection is gone.
func (l *link) addRing(u ringUser) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead != nil {
		return 0, unsent(ioctl.OpRing, l.dead)
	}
	for i, other := range l.rings {
		if other == nil {
			l.rings[i] = u
			return i + 1, nil
		}
	}
	return 0, api.Errorf(api.EAGAIN, ioctl.OpRing.Name(), "the connection has %d rings, as many as it may: close a queue", ioctl.MaxRings)
}

// dropRing takes a ring's index back.
func (l *link) dropRing(index int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rings[index-1] = nil
}

// ringFailed ends the request of a ring that an error message answers. It says
// whether the buffer is kept.
func (l *link) ringFailed(h ioctl.Header, buf *[ioctl.MaxMessage]byte, n int) bool {
	i := ringOf(h.Tag)
	if i > ioctl.MaxRings || h.Flags&ioctl.FlagError == 0 {
		return false
	}
	l.mu.Lock()
	u := l.rings[i-1]
	l.mu.Unlock()
	return u != nil && u.failed(h, buf, n)
}
