package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// memory compares the table of committed objects with a map.
func (b *bench) memory(ctx context.Context) error {
	n := int64(10_000_000)
	if b.quick {
		n = 500_000
	}
	turns := b.turns
	b.turns = min(turns, 2) // bytes are the same each time, and the map takes long
	defer func() { b.turns = turns }()
	count := []string{"-objects", strconv.FormatInt(n, 10), "-kind"}
	all, err := b.alternate(ctx,
		b.worker("table", "memory", append(count, "table")...),
		b.worker("map[uint64]*struct", "memory", append(count, "map")...),
	)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%d objects", n)
	b.report(name+": resident", extra("resident", "B/object"), all[0], all[1], valueAtMost, 64, 48)
	b.report(name+": live heap", extra("live", "B/object"), all[0], all[1], valueAtMost, 64, 48)
	b.report(name+": GC cycle", extra("gc", "ms"), all[0], all[1], valueAtMost, 5, 0)
	b.report(name+": lookup", extra("lookup", "ns CPU"), all[0], all[1], ratioAtMost, 0, 0)
	sums, err := b.alternate(ctx, b.worker("table", "memory", append(count[:1:1], strconv.FormatInt(n/10, 10), "-kind", "sums")...))
	if err != nil {
		return err
	}
	b.report(fmt.Sprintf("%d objects of 16 blocks: further sums", n/10), extra("sums", "B/object"), sums[0], nil, valueAtMost, 0, 0)
	return nil
}

// oneBlock describes a committed object of blocks blocks.
func oneBlock(i uint64, sums []uint32) layout.Object {
	size := uint64(len(sums)) * layout.BlockSize
	return layout.Object{
		ID: layout.NewObjectID(layout.KindMblock, i+1), Birth: layout.BirthStamp(i + 1),
		Extent:  layout.Extent{Start: i * 16, Blocks: 16},
		Written: size, Capacity: size, Tag: i * 0x9e3779b97f4a7c15, Created: 1_790_000_000_000 + i, Sums: sums,
	}
}

// plain is what an ordinary program would keep of an object of one block: 64
// bytes.
type plain struct {
	birth, start, written, capacity, tag, created uint64
	blocks, owner, sum                            uint32
	drive                                         uint16
}

// memoryWork fills a table, or a map, and looks at what it takes.
func memoryWork(_ context.Context, o *options) (*measure.Result, error) {
	sums := make([]uint32, 1)
	if o.kind == "sums" {
		sums = make([]uint32, layout.MaxInlineSums)
	}
	base, heap := resident(), live()
	table := layout.NewTable(nil)
	var objects map[uint64]*plain
	if o.kind == "map" {
		objects = make(map[uint64]*plain)
	}
	clock := measure.Start()
	for i := range uint64(o.objects) {
		sums[0] = uint32(i)
		obj := oneBlock(i, sums)
		if objects == nil {
			table.Insert(obj)
			continue
		}
		objects[uint64(obj.ID)] = &plain{
			birth: uint64(obj.Birth), start: obj.Extent.Start, written: obj.Written, capacity: obj.Capacity,
			tag: obj.Tag, created: obj.Created, blocks: obj.Extent.Blocks, owner: obj.Owner, sum: obj.Sums[0],
			drive: obj.Extent.Drive,
		}
	}
	r := clock.Stop()
	r.Ops = o.objects
	alive := live() - heap
	r.Extra = map[string]float64{"live": alive / float64(o.objects), "gc": collection(), "dirty": (resident() - base) / float64(o.objects)}
	debug.FreeOSMemory()
	r.Extra["resident"] = (resident() - base) / float64(o.objects)
	rng := rand.New(rand.NewPCG(1, 2))
	clock = measure.Start()
	const lookups = 1_000_000
	for range lookups {
		n := rng.Uint64N(uint64(o.objects))
		id := layout.NewObjectID(layout.KindMblock, n+1)
		if objects != nil {
			if objects[uint64(id)].tag != n*0x9e3779b97f4a7c15 {
				return nil, fmt.Errorf("the map lost object %v", id)
			}
			continue
		}
		if found, ok := table.Lookup(id); !ok || found.Birth != layout.BirthStamp(n+1) {
			return nil, fmt.Errorf("the table lost object %v", id)
		}
	}
	r.Extra["lookup"] = clock.Stop().CPUUS * 1e3 / lookups
	_, further := table.Bytes()
	r.Extra["sums"] = float64(further) / float64(o.objects)
	runtime.KeepAlive(table)
	runtime.KeepAlive(objects)
	return r, nil
}

// live returns the bytes of the heap that are in use.
func live() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// collection returns how long a collection takes, in ms: the shortest of some.
func collection() float64 {
	best := time.Hour
	for range 5 {
		at := time.Now()
		runtime.GC()
		best = min(best, time.Since(at))
	}
	return float64(best.Nanoseconds()) / 1e6
}

// resident returns the resident bytes of this process.
func resident() float64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseFloat(f[1], 64)
	if err != nil {
		return 0
	}
	return pages * float64(os.Getpagesize())
}
