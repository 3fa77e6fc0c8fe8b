// Package space knows which zones of one drive are free, in use or draining.
// It keeps nothing on the drive: activation fills a [Map] from the metadata.
//
// A zone is in one of five states:
//
//	         Insert                    Insert
//	  +---------------- Free ----------------------+
//	  |                 |  ^                       |
//	  |           Alloc |  | Release               v
//	  |                 v  |                    Overhead
//	  |        Uncommitted |                       |
//	  |          |       | Drain                   |
//	  |   Commit |       v                         |
//	  |          |   Draining <--------------------+
//	  v          v       ^            Drain
//	Live <-------+       |
//	  |                  |
//	  +------------------+
//	         Drain
//
// What an Alloc gave and nobody has written to goes back to Free at once, by Return.
// Free zones are handed out first fit, in contiguous runs of any length. A share
// of them (the spare share) is kept back from ordinary allocations.
//
// # Shape
//
// One bit a zone, set when the zone is free, and over each power of two of
// 64-bit words a node with the free run at its beginning, the longest within,
// and the free run at its end. Finding the first run of a length and the length
// of the longest, and changing a run, take a number of steps that grows with
// the logarithm of the drive (changing: also with the run's length by 64). 16 M
// zones take 5 MiB, without a pointer.
//
// # Invariants
//
//   - Free + Uncommitted + Live + Draining + Spare + Overhead = Total, always.
//   - A zone is given to nobody while it is anybody's. Releasing what is free
//     and handing out what is not panics, in every build: two objects in one
//     place are worse than a stop. Simulations and builds with the tag
//     invariants keep each zone's state and panic on every wrong transition.
//
// # Locks
//
// A Map has one mutex of rank sched.RankSpace; no call blocks while holding it.
//
// # Example
//
//	m := space.New(nil, 1024, 5)
//	_ = m.Insert(space.Run{Start: 0, Count: 2}, space.Overhead)
//	r, err := m.Alloc(3, false) // zones 2..4, uncommitted
//	if err == nil {
//		m.Commit(r)
//		m.Drain(r, space.Live)
//		m.Release(r)
//	}
package space
