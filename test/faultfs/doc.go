// Package faultfs gives real programs a drive that fails on purpose: a regular
// file in a FUSE file system of this process, to be opened with O_DIRECT through
// pread or io_uring, or to be put under a loop device. It needs root and Linux.
//
//	d := faultfs.New(t, 96<<20, faultfs.Options{})
//	// run mpoold with a pool on d.Path, or on
//	dev := loopdev.New(t, 0, loopdev.Options{Backing: d.Path})
//	d.Disk().Inject(sim.Fault{Code: bdev.OpFlush, Err: syscall.EIO, Count: 1})
//	release := d.Stall(faultfs.Stall{Code: bdev.OpWrite})
//	d.Waiting(t, 1) // a write hangs
//	release()
//	// kill mpoold
//	d.PowerCut(rng, sim.CutOptions{})
//
// # The fault model
//
// What is below the file is a disk of package bdev/sim, and its fault model is
// the one here: a volatile cache over a durable medium; a flush that covers
// exactly the writes that ended before it began; a power cut that keeps any
// subset of the volatile writes, torn at sectors of 512 bytes, and may leave a
// torn physical sector unreadable; failed writes that arrived in part; failed
// flushes after which each write is durable, lost or volatile; lies (a lost,
// a misdirected write, a flipped bit) and a device that vanishes. See there.
// [Drive.Disk] gives the disk, to inject into and to look at.
//
// Of the real world this package adds:
//
//   - Stalls ([Drive.Stall]): the operations that match do not begin before
//     they are released or a time has passed. A signal does not interrupt
//     them, so a process that is killed meanwhile stays until they have ended.
//   - A freeze ([Freezer]): all that changes the drives is held from one
//     operation on, while who has begun it is killed; each of what is held is
//     then done or not. Killed at operation 1, 2, 3 … a program has been killed
//     everywhere.
//   - Short writes ([Drive.Shorten]): a write of more than one sector stores
//     its beginning only and says so, without an error, as a full file system
//     does before it says ENOSPC. Of an asynchronous write (io_uring, a loop
//     device) the kernel makes EIO.
//   - The end of the connection ([Drive.Abort]): from then on every operation,
//     also one under way, fails with ECONNABORTED or ENOTCONN, for good.
//
// What the kernel adds on its way is part of the model: a FUSE file takes its
// inode's lock for a flush, so a flush that stalls holds up writes, too (reads
// go on). Each drive is a file system of its own, so nothing that is bounded in
// the kernel is shared between two of them. Nothing is cached in the kernel
// when the file is read or written, with or without O_DIRECT.
//
// # What it leaves behind
//
// Nothing: the file system is unmounted and its folder removed when the test
// ends, and a leftover fails the test. Stalls are released before, so that who
// hangs can end. If the test process is killed, a shell that waits for its end
// does the same.
package faultfs
