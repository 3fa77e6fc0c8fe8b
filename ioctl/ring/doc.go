// Package ring is the memory that a client and the daemon share for requests
// about data: a ring of descriptors that the client fills, and a ring of
// completions that the daemon fills. Neither side makes a system call for a
// request unless the other sleeps. It knows what a descriptor looks like, not
// what it asks for.
//
// # Form, version 3
//
// A ring lies in an arena, at an offset that is a multiple of 4096, and has a
// number of entries that is a power of two, [MinEntries] to [MaxEntries]. All
// numbers are little-endian, as on every machine that this is built for.
//
//	0x000  submitted u32   descriptors ever filled, by the client
//	0x080  taken     u32   descriptors ever taken, by the daemon
//	0x100  bell      u32   futex: 1 while the daemon sleeps, else 0
//	0x180  ended     u32   completions ever filled, by the daemon
//	0x200  seen      u32   completions ever taken, by the client
//	0x280  waiter    u32   futex: 1 while the client sleeps, else 0
//	0x300  wanted    u32   completions ever filled at which the client is to be woken
//	0x1000           entries descriptors of 64 bytes
//	                 entries completions of 32 bytes
//
// Counters wrap at 2^32; entry n is at n modulo entries. What lies between the
// named words is nobody's.
//
//	descriptor
//	 0      2   3   4     6    8       16       24       32       36
//	+------+---+---+-----+----+-------+--------+--------+--------+--------+
//	|  op  |flg|cls|arena| 0  |  tag  | handle | offset | window | length |
//	+------+---+---+-----+----+-------+--------+--------+--------+--------+
//	 40     44     48      56       64
//	+------+------+-------+--------+
//	|owner | zero | label |  zero  |
//	+------+------+-------+--------+
//
//	completion
//	 0       8        12   14   16       24       32
//	+-------+--------+----+----+--------+--------+
//	|  tag  |   n    | op |flg |   a    |   b    |
//	+-------+--------+----+----+--------+--------+
//
// The daemon answers a descriptor by a completion, if it succeeded, or else by
// an error message on the socket with the descriptor's operation and tag. It
// has at most as many unanswered descriptors, and completions that the client
// has not taken, as the ring has entries.
//
// # Trust
//
// The client trusts the daemon. The daemon trusts nothing: it copies a
// descriptor out by whole words, once, before it looks at it; its own counters
// are its own memory and only shown to the client; a counter of the client's
// that cannot be true is [ErrBroken]. The race detector is blind to this memory.
//
// # Sleep
//
// Who is about to sleep says so (bell, waiter), looks once more whether there is
// work, and waits for the futex to change. Who has made work looks whether the
// other sleeps, and wakes it. All words are read and written in one order that
// both sides see, so one of them sees the other's.
package ring
