package bdev

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/bdev/uring"
	"github.com/mpool-go/mpool/sched"
)

// Queue is an I/O queue that one goroutine owns: it puts operations on it and
// reaps their ends. It never blocks but in Reap. One queue may serve several
// drives. Not safe for concurrent use.
type Queue interface {
	// Put prepares an operation; Op.Drive must be set. It is started by the
	// next Submit, Reap or Sleep, also if it was put while one called an OnDone:
	// so a loop that reaps again enters the kernel once a turn. It returns false
	// when the queue is full: reap first.
	Put(o *Op) bool
	// Submit starts what was put.
	Submit() error
	// Reap starts what was put, waits until at least so many operations have ended
	// since the last Reap (or none are under way), and calls Op.Complete (and
	// so OnDone) for each that has. It returns how many. To wait for several, if
	// many are under way, saves wake-ups, the owner's and the device's.
	Reap(atLeast int) (int, error)
	// InFlight returns how many operations were put and have not been reaped.
	InFlight() int
	// Close ends the queue. No operation may be under way.
	Close() error
}

// BufferID names a buffer registered with a queue; 0 names none.
type BufferID uint32

// Registrar is a Queue with which memory and drives can be registered, which
// makes each operation on them cheaper. The queue's owner calls it.
type Registrar interface {
	// RegisterBuffer registers memory, which must stay mapped until it is
	// unregistered. An Op whose Buf lies in it may have Fixed set to the id.
	// ErrNotRegistered: no slot is left, or the kernel refuses (it says why).
	RegisterBuffer(mem []byte) (BufferID, error)
	// UnregisterBuffer ends that. No operation with the id may be under way.
	UnregisterBuffer(id BufferID) error
	// RegisterDrive registers a drive's device: it stays open, and claimed,
	// until the drive is unregistered or the queue closed, whatever happens to
	// the Drive. Without a free slot it does nothing.
	RegisterDrive(d *Drive) error
	// UnregisterDrive ends that. It must come before the drive's Close, with
	// none of its operations under way.
	UnregisterDrive(d *Drive) error
}

// RegisterBuffer registers memory with a queue, if the queue can. Else it
// returns 0 and an error that wraps ErrNotRegistered: operations work on the
// memory as on any.
func RegisterBuffer(q Queue, mem []byte) (BufferID, error) {
	if r, ok := q.(Registrar); ok {
		return r.RegisterBuffer(mem)
	}
	return 0, ErrNotRegistered
}

// Waker is a Queue whose waits can be ended from outside. All queues of this
// package are.
type Waker interface {
	// Wake makes the Reap or Sleep under way, or else the next, return although
	// fewer operations than it waits for have ended. Any goroutine may call it
	// until the queue is closed.
	Wake()
	// Sleep is Reap(1), but waits also when no operation is under way: until
	// Wake is called or a wait for a word ends.
	Sleep() (int, error)
	// SleepFor is Sleep, but returns at the latest when d has passed, d > 0.
	SleepFor(d time.Duration) (int, error)
}

// WordWaiter is a Queue whose Reap and Sleep can be ended by a write to memory that other
// processes share (a futex), together with what it waits for otherwise.
type WordWaiter interface {
	// WaitWord waits until somebody wakes the futex at word, as long as it
	// holds value: done is called once, by a Reap, which then returns. Its
	// error is nil after a wake-up, EAGAIN if the word did not hold the value.
	// The word must stay mapped until then; see EndWait.
	// WaitWord returns false when the kernel has no such wait (before Linux
	// 6.7) or all QueueOptions.Words are in use. The queue's owner calls it.
	WaitWord(word *uint32, value uint32, done func(error)) bool
	// EndWait ends all waits for a word: done gets ECANCELED, by a Reap. To wake
	// the futex is not enough where the word is shared with somebody hostile, who
	// can have the kernel take a wait to another word, or be in its way. It may do
	// nothing when much else was put since the last Reap: call it again then. The
	// queue's owner calls it.
	EndWait(word *uint32)
}

// QueueOptions are how a queue is made. The zero value is a queue of 128
// operations with the best engine.
type QueueOptions struct {
	// Depth is how many operations may be under way. 0: 128. At most 16384.
	Depth int
	// Engine chooses what does the I/O: io_uring, or the drives' own engines
	// (Pread, and in a simulation always).
	Engine EngineKind
	// MaxWorkers is how many kernel threads the queue occupies at most, for
	// what a device cannot do without one. 0: 32.
	MaxWorkers int
	// Buffers and Drives are how many can be registered. 0: 64. At most 16384.
	Buffers, Drives int
	// Words is how many words can be waited for. 0: 64. At most 4096.
	Words int
}

const (
	defaultDepth = 128
	defaultSlots = 64
	maxWords     = 4096
)

func (o *QueueOptions) validate() error {
	switch {
	case o.Depth < 0 || o.Depth > maxQueueDepth:
		return fmt.Errorf("queue depth %d is not in 1..%d: %w", o.Depth, maxQueueDepth, unix.EINVAL)
	case o.Buffers < 0 || o.Buffers > maxQueueDepth || o.Drives < 0 || o.Drives > maxQueueDepth:
		return fmt.Errorf("%d buffers, %d drives to register: %w", o.Buffers, o.Drives, unix.EINVAL)
	case o.Words < 0 || o.Words > maxWords:
		return fmt.Errorf("%d words to wait for: %w", o.Words, unix.EINVAL)
	case o.Engine > Pread || o.MaxWorkers < 0:
		return fmt.Errorf("engine %d, %d workers: %w", o.Engine, o.MaxWorkers, unix.EINVAL)
	}
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.Depth, defaultDepth)
	def(&o.MaxWorkers, defaultMaxWorkers)
	def(&o.Buffers, defaultSlots)
	def(&o.Drives, defaultSlots)
	def(&o.Words, defaultSlots)
	return nil
}

// NewQueue makes a queue for the calling goroutine. A queue over io_uring
// belongs to the thread: the caller has called runtime.LockOSThread, and makes,
// uses and closes the queue before it unlocks. Such a queue lets Go's scheduler
// run in Reap and Sleep every few milliseconds; see ringQueue. In a simulation the queue goes
// through the drives' engines. uring.ErrUnsupported when io_uring was asked for
// and is refused.
func NewQueue(s *sched.Sched, o QueueOptions) (Queue, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("make queue: %w", err)
	}
	if !s.Simulated() && o.Engine != Pread {
		q, err := newRingQueue(&o)
		if err == nil {
			return q, nil
		}
		if o.Engine == URing || !errors.Is(err, uring.ErrUnsupported) {
			return nil, fmt.Errorf("make queue: %w", err)
		}
	}
	return newEngineQueue(s, o.Depth), nil
}
