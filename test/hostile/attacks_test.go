package hostile

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// attacks are all kinds of hostility.
var attacks = []attack{
	{name: "busy-machine", run: busyMachine, clients: 6}, // to compare the others with
	{name: "lengths", run: lengths, clients: 6},
	{name: "random-bodies", run: randomBodies, clients: 6},
	{name: "mutations", run: mutations, clients: 6},
	{name: "half-messages", run: halfMessages, clients: 6},
	{name: "extreme-values", run: extremeValues, clients: 6},
	{name: "flood", run: flood, clients: 4},
	{name: "flood-unread", run: floodUnread, clients: 12},
	{name: "reads-at-once", run: readsAtOnce, clients: 100},
	{name: "hoard-handles", run: hoardHandles, clients: 2},
	{name: "grants", run: grants, clients: 4},
	{name: "grants-guessed", run: guesses, clients: 4},
	{name: "hoard-waits", run: hoardWaits, clients: 6},
	{name: "connects", run: connects, clients: 4},
	{name: "connects-silent", run: connectsSilent, clients: 2},
	{name: "hello-and-tags", run: helloAndTags, clients: 6},
	{name: "descriptors", run: descriptors, clients: 4},
	{name: "arenas", run: arenas, clients: 6},
	{name: "scribble", run: scribble, clients: 2},
	{name: "handles-of-others", run: handlesOfOthers, clients: 4},
	{name: "handles-in-use", run: handlesInUse, clients: 4},
	{name: "strangers", run: strangers, clients: 2},
	{name: "forged", run: forged, clients: 4, asRoot: true},
	{name: "ring-scribble", run: ringScribble, clients: 3},
	{name: "ring-counters", run: ringCounters, clients: 3},
	{name: "ring-descriptors", run: ringDescriptors, clients: 3},
	{name: "ring-bells", run: ringBells, clients: 2},
	{name: "ring-storm", run: ringStorm, clients: 3},
	{name: "ring-memory", run: ringMemory, clients: 2},
	{name: "ring-objects", run: ringObjects, clients: 3},
	{name: "ring-unread", run: ringUnread, clients: 4},
	{name: "ring-lanes", run: ringLanes, clients: 2},
	{name: "ring-reads", run: ringReads, clients: 8},
}

// busyMachine asks the daemon for next to nothing, and keeps the processors busy.
func busyMachine(a *attacker) {
	if w := a.greet(); w != nil {
		w.Conn.Close()
	}
	for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); {
		a.bytes(1000)
	}
}

// lengths sends messages that are longer or shorter than they say, or than
// their operation allows.
func lengths(a *attacker) {
	w, _ := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	op := a.op()
	b := a.message(ioctl.OpVersion, 1, &ioctl.Empty{})
	if op.Valid() {
		b = a.blank(op, 1)
	}
	switch a.rng.IntN(4) {
	case 0:
		b = b[:a.rng.IntN(len(b)+1)]
	case 1:
		b = append(b, a.bytes(a.rng.IntN(200))...)
	case 2: // it says how long it is
		b = append(b, a.bytes(a.rng.IntN(ioctl.MaxMessage-len(b)))...)
		putSize(b)
	default:
		b[a.rng.IntN(4)] ^= byte(1 << a.rng.IntN(8))
	}
	a.throw(w, b, nil)
	a.drain(w)
}

func putSize(b []byte) {
	for i := range 4 {
		b[i] = byte(len(b) >> (8 * i))
	}
}

// randomBodies sends every operation with any bytes for a body.
func randomBodies(a *attacker) {
	w, _ := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	for tag := range uint64(20) {
		b := a.message(ioctl.OpVersion, tag, &ioctl.Empty{})
		op := a.op()
		b[4], b[5] = byte(op), byte(op>>8)
		size := a.rng.IntN(100)
		if op.Valid() {
			size = len(a.blank(op, 0)) - ioctl.HeaderSize
		}
		b = append(b, a.bytes(size)...)
		putSize(b)
		if !a.throw(w, b, nil) {
			return
		}
	}
	a.drain(w)
}

// mutations sends sequences that make sense but for some bits.
func mutations(a *attacker) {
	w, pool := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	b := a.give(w, ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 16}})
	l := a.give(w, ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 16}})
	if b == 0 || l == 0 {
		return
	}
	data := ioctl.InlinePayload(make([]byte, 4096))
	for tag, m := range [][]byte{
		a.message(ioctl.OpMblockWrite, 0, &ioctl.MblockWrite{Mblock: b, Total: 4096, Data: data}),
		a.message(ioctl.OpMblockRead, 0, &ioctl.MblockRead{Mblock: b, Into: ioctl.Window{Length: 4096}}),
		a.message(ioctl.OpObjectInfo, 0, &ioctl.Target{Handle: b}),
		a.message(ioctl.OpObjectCommit, 0, &ioctl.Target{Handle: l}),
		a.message(ioctl.OpMlogOpenAppend, 0, &ioctl.Target{Handle: l}),
		a.message(ioctl.OpAppend, 0, &ioctl.AppendRecord{To: l + 1, Data: data}),
		a.message(ioctl.OpCommitMany, 0, &ioctl.CommitMany{Pool: pool, Objects: []ioctl.Handle{b, l}}),
		a.message(ioctl.OpListOpen, 0, &ioctl.ListOpen{Pool: pool}),
		a.message(ioctl.OpObjectDelete, 0, &ioctl.Target{Handle: l}),
		a.message(ioctl.OpObjectAbort, 0, &ioctl.Target{Handle: b}),
		a.message(ioctl.OpClose, 0, &ioctl.Target{Handle: pool}),
	} {
		m[8] = byte(tag + 1)
		for range a.rng.IntN(3) {
			m[ioctl.HeaderSize+a.rng.IntN(len(m)-ioctl.HeaderSize)] ^= 1 << a.rng.IntN(8)
		}
		if !a.throw(w, m, nil) {
			return
		}
	}
	a.drain(w)
}

// halfMessages sends what is no message: nothing, a part, far too much.
func halfMessages(a *attacker) {
	w, _ := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	whole := a.message(ioctl.OpPoolShow, 1, &ioctl.PoolShow{Name: poolName})
	switch a.rng.IntN(5) {
	case 0:
		a.throw(w, whole[:a.rng.IntN(len(whole))], nil)
	case 1: // in two halves
		i := a.rng.IntN(len(whole))
		a.throw(w, whole[:i], nil)
		a.throw(w, whole[i:], nil)
	case 2:
		a.throw(w, nil, nil)
	case 3:
		a.throw(w, a.bytes(ioctl.MaxMessage+1+a.rng.IntN(ioctl.MaxMessage)), nil)
	default: // and nothing more
		a.throw(w, whole, nil)
		_ = w.Conn.CloseWrite() // the daemon may have been faster
	}
	a.drain(w)
}

// number draws one that is often extreme.
func (a *attacker) number() uint64 {
	extreme := []uint64{
		0, 1, 4095, 4096, 4097, 1 << 16, 1 << 20, 1 << 30, 1 << 31, 1<<32 - 1, 1 << 40,
		math.MaxInt64 - 4095, math.MaxInt64, 1 << 63, math.MaxUint64 - 4095, math.MaxUint64,
	}
	return extreme[a.rng.IntN(len(extreme))] + uint64(a.rng.IntN(3)*a.rng.IntN(2))
}

func (a *attacker) window(arena uint16) ioctl.Window {
	if a.rng.IntN(2) == 0 {
		return ioctl.Window{Length: uint32(a.rng.IntN(ioctl.MaxInline + 1))}
	}
	return ioctl.Window{Arena: arena, Offset: uint32(a.number()), Length: uint32(a.number())}
}

// extremeValues makes well-formed requests with any values, handles of which
// some are real.
func extremeValues(a *attacker) {
	w, pool := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	arena, mem, err := w.Mapped(1 << 16)
	if err == nil {
		defer unix.Munmap(mem) // fails only for what is not mapped
	}
	alloc := &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 16}}
	handles := []ioctl.Handle{pool, a.give(w, ioctl.OpMblockAlloc, alloc), a.give(w, ioctl.OpMlogAlloc, alloc)}
	a.give(w, ioctl.OpObjectCommit, &ioctl.Target{Handle: handles[2]})
	handles = append(handles, a.give(w, ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: handles[2]}),
		a.give(w, ioctl.OpMlogOpenRead, &ioctl.Target{Handle: handles[2]}))
	for range 40 {
		h := handles[a.rng.IntN(len(handles))]
		target := &ioctl.Target{Handle: h}
		id := layout.NewObjectID(layout.Kind(1+a.rng.IntN(2)), a.number()>>9)
		requests := []struct {
			op ioctl.Op
			m  ioctl.Message
		}{
			{ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: h, Options: api.AllocOptions{Capacity: int64(a.number()), Owner: uint32(a.number())}}},
			{ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: h, Options: api.AllocOptions{Capacity: int64(a.number()), Class: api.Class(a.number())}}},
			{ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: h, ID: id, Options: api.AllocOptions{Capacity: 1}}},
			{ioctl.OpMblockRead, &ioctl.MblockRead{Mblock: h, Offset: int64(a.number()), Into: a.window(arena)}},
			{ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: h, Total: a.number(), Data: ioctl.Payload{Window: ioctl.Window{
				Arena: 1, Offset: uint32(a.number()), Length: uint32(a.number()),
			}}}},
			{ioctl.OpAppend, &ioctl.AppendRecord{To: h, Data: ioctl.InlinePayload(make([]byte, a.rng.IntN(5000)))}},
			{ioctl.OpReadNext, &ioctl.ReadNext{Reader: h, Into: a.window(arena), Rewind: a.rng.IntN(2) == 0}},
			{ioctl.OpReadSeek, &ioctl.ReadSeek{Reader: h, Record: a.number()}},
			{ioctl.OpMlogErase, &ioctl.MlogErase{Mlog: h, MinGeneration: a.number()}},
			{ioctl.OpMblockFind, &ioctl.Find{Pool: h, ID: id}},
			{ioctl.OpMDCOpen, &ioctl.Find{Pool: h, ID: id}},
			{ioctl.OpPoolShow, &ioctl.PoolShow{Pool: h, FirstDrive: uint32(a.number())}},
			{ioctl.OpOwnerList, &ioctl.OwnerList{Pool: h, From: uint32(a.number())}},
			{ioctl.OpStat, &ioctl.StatAsk{Pool: poolName, FirstOp: uint16(a.number()), FirstDrive: uint32(a.number())}},
			{ioctl.OpArena, &ioctl.ArenaAsk{Size: a.number()}},
			{ioctl.OpEventNext, &ioctl.EventNext{After: a.number(), Since: time.Unix(0, int64(a.number()))}},
			{ioctl.OpClientList, &ioctl.ClientList{After: a.number(), PID: int32(a.number())}},
			{ioctl.OpHandleList, &ioctl.HandlesAsk{AfterSession: a.number(), PID: int32(a.number())}},
			{ioctl.OpObjectInfo, target},
			{ioctl.OpObjectGet, target},
			{ioctl.OpGrant, &ioctl.Grant{Object: h, TTL: time.Duration(a.number())}},
			{ioctl.OpRevoke, target},
			{ioctl.OpAccept, &ioctl.Accept{Pool: h}},
			{ioctl.OpObjectCommit, target},
			{ioctl.OpSync, target},
			{ioctl.OpPoolDestroy, &ioctl.PoolName{Name: poolName}},
			{ioctl.OpPoolDeactivate, &ioctl.PoolName{Name: poolName}},
			{ioctl.OpPoolActivate, &ioctl.PoolActivate{Name: "x", Devices: []string{"/dev/zero", "/dev/stdin"}}},
		}
		x := requests[a.rng.IntN(len(requests))]
		if g := a.give(w, x.op, x.m); g != 0 {
			handles = append(handles, g)
		}
		_ = w.Conn.SetDeadline(time.Now().Add(soon)) // then the next call fails
	}
}

// flood makes as many requests as it can, and reads the answers.
func flood(a *attacker) {
	w, pool := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	for range 200 {
		for tag := range uint64(64) {
			m := a.message(ioctl.OpPoolShow, tag, &ioctl.PoolShow{Pool: pool})
			if !a.throw(w, m, nil) {
				return
			}
		}
		_ = w.Conn.SetDeadline(time.Now().Add(10 * soon)) // then the next call fails
		for range 64 {
			if _, err := w.Conn.Read(a.buf); err != nil || !a.on() {
				return
			}
		}
	}
}

// floodUnread asks for much and reads nothing.
func floodUnread(a *attacker) {
	w, pool := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	b := a.give(w, ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 16}})
	data := ioctl.InlinePayload(a.bytes(ioctl.MaxInline))
	if _, err := a.ask(w, ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: b, Total: ioctl.MaxInline, Data: data}); err != nil {
		return
	}
	for tag := uint64(100); a.on(); tag++ {
		m := a.message(ioctl.OpMblockRead, tag, &ioctl.MblockRead{Mblock: b, Into: ioctl.Window{Length: ioctl.MaxInline}})
		_ = w.Conn.SetWriteDeadline(time.Now().Add(soon)) // then the next call fails
		if !a.throw(w, m, nil) {
			return // the daemon has stopped reading
		}
	}
}

// readsAtOnce keeps as many reads of the drive under way as it may.
func readsAtOnce(a *attacker) {
	w, pool := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	b := a.give(w, ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 16}})
	data := ioctl.InlinePayload(make([]byte, ioctl.MaxInline))
	if _, err := a.ask(w, ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: b, Total: ioctl.MaxInline, Data: data}); err != nil {
		return
	}
	for tag := range uint64(requests) {
		m := a.message(ioctl.OpMblockRead, tag+100, &ioctl.MblockRead{Mblock: b, Into: ioctl.Window{Length: 4096}})
		if !a.throw(w, m, nil) {
			return
		}
	}
	for tag := uint64(0); a.on(); tag++ {
		_ = w.Conn.SetDeadline(time.Now().Add(20 * soon)) // then the next call fails
		if _, err := w.Conn.Read(a.buf); err != nil {
			return
		}
		m := a.message(ioctl.OpMblockRead, tag%requests+100, &ioctl.MblockRead{Mblock: b, Into: ioctl.Window{Length: 4096}})
		m[8], m[9] = a.buf[8], a.buf[9] // the tag that is free now
		if !a.throw(w, m, nil) {
			return
		}
	}
}

// hoardHandles opens whatever it can, as often as it can.
func hoardHandles(a *attacker) {
	w, pool := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	l := a.give(w, ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 16}})
	a.give(w, ioctl.OpObjectCommit, &ioctl.Target{Handle: l})
	for i := 0; a.on(); i++ {
		_ = w.Conn.SetDeadline(time.Now().Add(soon)) // then the next call fails
		var h ioctl.Handle
		switch i % 4 {
		case 0:
			h = a.give(w, ioctl.OpListOpen, &ioctl.ListOpen{Pool: pool})
			a.ask(w, ioctl.OpListNext, &ioctl.Target{Handle: h}) // it may fail
		case 1:
			h = a.give(w, ioctl.OpMlogOpenRead, &ioctl.Target{Handle: l})
			a.ask(w, ioctl.OpReadNext, &ioctl.ReadNext{Reader: h, Into: ioctl.Window{Length: 100}}) // it may fail
		case 2:
			h = a.give(w, ioctl.OpObjectGet, &ioctl.Target{Handle: l})
		default:
			h = a.give(w, ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool})
		}
		if h == 0 && i > 20_000 {
			return
		}
	}
}
