// Package sim is a block device that fails on purpose: the device on which the
// engine is proven. A [Disk] is the medium with its write cache; it outlives
// power cuts and processes. [Open] gives a drive over it, in a simulation
// ([sched.Sched]) or without one. Everything random comes from the simulation's
// dice, so a run follows from one number.
//
//	disk := sim.NewDisk(16<<20, sim.DiskOptions{})
//	s := sched.New(seed)
//	cutter := &sim.Cutter{Sched: s, At: 17}
//	err := s.Run(func() {
//		drive, err := sim.Open(s, disk, sim.OpenOptions{OnIO: cutter.OnIO})
//		// ... run the engine on the drive; the machine stops at boundary 17
//	})
//	after, cut := disk.Survivor(rng, sim.CutOptions{}) // one medium the cut may leave
//
// # The fault model
//
// The unit of everything is the sector of 512 bytes; one sector is written
// whole or not at all. Larger units only tear.
//
// Content has three places. A write that is under way has handed over as much
// of its buffer as the device has fetched. A write that has ended is in the
// device's volatile cache: reads see it. What is durable is on the medium.
//
//	 buffer --fetch--> under way --end--> cache --flush that began later--> medium
//	                       |                |                                  |
//	power cut: any part of what was fetched | any part, in any order           | stays
//	kill:      any part                     | stays                            | stays
//
// Fetching. The device reads a write's buffer at any moment between the
// write's start and its end, and not all of it at once. A buffer that changes
// meanwhile gives a mixture. A read's buffer is filled at its end; a read that
// overlaps writes under way sees, sector by sector, old or new.
//
// Flush. A flush covers exactly the writes that ended before it began. They are
// durable when it succeeds. Writes under way while it runs stay volatile.
//
// Power cut ([Disk.Survivor], [Disk.PowerCut]). Of the writes in the cache and
// of those under way any subset is kept, applied in the order of their ends or
// in any other, each whole or torn: any subset of its sectors. With physical
// sectors of 4096 bytes a physical sector that a torn write touches may become
// unreadable, with all that was durable in it: reads get EIO until the whole
// physical sector is written again, and a write of a part of it gets EIO too.
// Common outcomes (none, all, all but one, only the last, only the last torn)
// are drawn more often than chance would.
//
// Kill ([Disk.Kill]). The process dies, power stays. Writes that ended stay in
// the cache, still volatile; those under way arrive whole, torn or not at all.
//
// Discard. A discard is volatile as a write is: after a power cut it has
// happened, in part, or not. A discarded range reads as [DiscardRead] says:
// zeros, the old content, garbage, or any of these drawn anew for each discard.
//
// Failed writes. A write that ends in an error (EIO, ENOSPC, ENODEV) has
// reached the cache whole, in part or not at all.
//
// Failed flush. Each write it would have covered is made durable, is lost, or
// stays volatile. What is lost can still be read until the power goes (a cache
// above the device shows it) or is gone at once; both happen.
//
// Stalls and latency. In a simulation every operation takes a time drawn
// between two limits, with a long tail, so operations end in any order. A fault
// can delay what it matches further. Without a simulation there is no latency
// and no stall: an operation ends before Start returns.
//
// Vanishing. From [Disk.Vanish] on every operation gets ENODEV, also those
// under way.
//
// Two paths. OpenOptions.Shared opens a disk beside those who have it open, as
// a second path does that the kernel cannot tell to be the same disk.
//
// Several disks. The disks of a [Rack] lose power together, each in its own way.
//
// Lies, only where a [Fault] asks for them: a write that is acknowledged and
// never done (lost), done in another place (misdirected), a read or write with
// one bit flipped; a flush that is acknowledged and never done: what it should
// have made durable stays volatile. [Disk.FlipBit] rots a bit of the medium,
// [Disk.SetUnreadable] a physical sector.
//
// # What is not modelled
//
//   - Sectors that tear within 512 bytes.
//   - Durable data that a power cut changes although nothing was written to its
//     physical sector.
//   - The kernel's page cache beside O_DIRECT, and reordering by it.
//   - A bounded device queue: the device takes any number of operations at once.
//   - FUA writes, write zeroes, zones, atomic writes.
//   - A write of a dead process that reaches the disk after the next process
//     has opened it.
//
// # Invariants
//
//   - What was durable stays durable, in every survivor, until it is
//     overwritten or discarded.
//   - When all writes have ended, a flush that began after has succeeded and
//     none failed before, medium and current content are the same.
//   - A Disk's method changes no other Disk: clones and survivors share pages,
//     and a shared page is never written.
//
// # Locks
//
// A Disk has one mutex, without a rank and of the real world also in a
// simulation: it is held for a few copies, never across a call out of this
// package, so that it may be taken by tasks, events and harnesses alike.
package sim
