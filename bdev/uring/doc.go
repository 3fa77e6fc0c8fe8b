// Package uring is a raw io_uring: the system calls, the two shared rings, the
// registrations, and what the running kernel has of them. It knows nothing of
// devices; bdev builds its engine and its queues on it.
//
// # The rings
//
//	          submission queue (we write)            completion queue (kernel writes)
//	       head (kernel)        tail (we)          head (we)          tail (kernel)
//	         |                    |                  |                    |
//	...free..|..taken next........|..free...  ...free.|..to be reaped......|..free...
//
// A [Ring] keeps an own copy of the submission tail: [Ring.SQE] hands out
// entries after it, [Ring.Publish] stores it for the kernel with release order.
// The kernel takes entries during [Ring.Enter] only, in order, whoever enters:
// so with several submitters "how many are not yet taken" is the difference of
// the tail and the kernel's head ([Ring.Pending]), never a caller's own count.
//
// # Who may call what
//
// SQE, Publish and Pending: one at a time (the owner of a lock, or the ring's
// one goroutine). Reap and Ready: one at a time, concurrently with the former.
// Enter: anybody, any number at a time, unless the ring was made with
// [SingleIssuer]; then only the thread that made it, and registrations too.
//
// # Memory
//
// What an entry points to belongs to the kernel until its completion was
// reaped (iovecs and the like only until Enter took the entry). It must be on
// the Go heap or outside of Go's memory, never on a goroutine's stack, which
// moves; and somebody must keep a Go pointer to it, because the ring holds
// plain numbers that the garbage collector does not see.
package uring
