package bdev

// Queue is an I/O queue that one goroutine owns: it puts operations on it and
// reaps their ends. It never blocks but in Reap. One queue may serve several
// drives. Not safe for concurrent use.
type Queue interface {
	// Put prepares an operation; Op.Drive must be set. It is started by the
	// next Submit or Reap. It returns false when the queue is full: reap first.
	Put(o *Op) bool
	// Submit starts what was put.
	Submit() error
	// Reap starts what was put, waits until at least min operations have ended
	// since the last Reap (or none are under way), and calls Op.Complete (and
	// so OnDone) for each that has. It returns how many.
	Reap(min int) (int, error)
	// InFlight returns how many operations were put and have not been reaped.
	InFlight() int
	// Close ends the queue. No operation may be under way.
	Close() error
}
