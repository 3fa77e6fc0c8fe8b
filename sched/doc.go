// Package sched is what the engine may block on: tasks, mutexes, conditions,
// completions, the clock and deadlines.
//
// A nil *Sched is the real world: goroutines, sync.Mutex, channels and the
// machine's clock. A *Sched made by [New] is a simulation: one task runs at a
// time, which one is picked from a seed at each call into this package, and
// the clock moves only when no task can run. The types are concrete structs
// with a nil-able pointer to the simulator rather than interfaces: a lock and
// unlock then costs one predictable branch more than sync.Mutex.
//
// Engine packages start no goroutine and use no channel, select, sync or wall
// clock but through this package (sync/atomic aside); a test over the source
// forbids it. That is what makes a run of the whole engine, concurrency
// included, a function of one number.
//
// # Invariants
//
//   - In simulation at most one task runs, and a task runs until it calls into
//     this package. Two runs from one seed make the same calls in the same
//     order.
//   - Every mutex has a rank. A task takes mutexes in rising rank only; the
//     simulator (and, in builds with the tag invariants, the real world)
//     panics on the first one out of order.
//   - A simulated power cut ([Sched.Cut]) unwinds every task by a private
//     panic that only this package recovers. Calls into this package made by
//     deferred functions meanwhile do nothing.
//   - A Cond or Completion is waited for with a context. In simulation a
//     context must come from [Sched.WithTimeout] or [Sched.WithCancel], or
//     never end.
//
// # Lock order
//
// Outermost first; see [Rank]. The whole tree with what each lock guards is in
// the doc comment of package mpool.
package sched
