package bdev

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/bdev/uring"
)

const (
	// futexSize32 (and without FUTEX2_PRIVATE: shared between processes).
	futexSize32 = 2
	// futexAny matches every wake-up.
	futexAny = 0xffffffff
)

// slotSet is the slots of a table of the ring: which are in use, and a stack of
// those that are not, the lowest on top at first.
type slotSet struct {
	used []bool
	free []uint32
}

func newSlotSet(n int) slotSet {
	s := slotSet{used: make([]bool, n), free: make([]uint32, n)}
	for i := range n {
		s.free[i] = uint32(n - 1 - i)
	}
	return s
}

// take returns a free slot, from then on in use, or -1.
func (s *slotSet) take() int {
	last := len(s.free) - 1
	if last < 0 {
		return -1
	}
	slot := int(s.free[last])
	s.free, s.used[slot] = s.free[:last], true
	return slot
}

// give takes a slot back.
func (s *slotSet) give(slot int) {
	s.used[slot] = false
	s.free = append(s.free, uint32(slot))
}

// has says whether a slot is in use.
func (s *slotSet) has(slot int) bool { return slot >= 0 && slot < len(s.used) && s.used[slot] }

// RegisterBuffer registers memory.
func (q *ringQueue) RegisterBuffer(mem []byte) (BufferID, error) {
	slot := q.buffers.take()
	if slot < 0 {
		return 0, fmt.Errorf("%w: all %d places are taken", ErrNotRegistered, len(q.buffers.used))
	}
	if err := q.ring.SetBuffer(slot, mem); err != nil {
		q.buffers.give(slot)
		return 0, fmt.Errorf("%w: %w", ErrNotRegistered, err)
	}
	return BufferID(slot + 1), nil
}

// UnregisterBuffer ends a registration.
func (q *ringQueue) UnregisterBuffer(id BufferID) error {
	slot := int(id) - 1
	if !q.buffers.has(slot) {
		return fmt.Errorf("no buffer is registered as %d: %w", id, syscall.EINVAL)
	}
	if err := q.ring.SetBuffer(slot, nil); err != nil {
		return err
	}
	q.buffers.give(slot)
	return nil
}

// RegisterDrive registers a drive's device.
func (q *ringQueue) RegisterDrive(d *Drive) error {
	dev := deviceOf(d)
	if _, ok := q.files[d]; ok || dev == nil {
		return nil
	}
	slot := q.fileSlots.take()
	if slot < 0 {
		return nil
	}
	if err := q.ring.SetFile(slot, dev.fd); err != nil {
		q.fileSlots.give(slot)
		return err
	}
	q.files[d] = int32(slot)
	q.known = knownDrive{}
	return nil
}

// UnregisterDrive ends a registration.
func (q *ringQueue) UnregisterDrive(d *Drive) error {
	slot, ok := q.files[d]
	if !ok {
		return nil
	}
	if err := q.ring.SetFile(int(slot), -1); err != nil {
		return err
	}
	delete(q.files, d)
	q.known = knownDrive{}
	q.fileSlots.give(int(slot))
	return nil
}

// wordWait is a wait for a word.
type wordWait struct {
	word *uint32 // nil: none
	done func(error)
}

// WaitWord waits for a futex.
func (q *ringQueue) WaitWord(word *uint32, value uint32, done func(error)) bool {
	if len(q.freeWords) == 0 {
		return false
	}
	e := q.ring.SQE()
	if e == nil {
		return false
	}
	w := q.freeWords[len(q.freeWords)-1]
	q.freeWords = q.freeWords[:len(q.freeWords)-1]
	q.words[w] = wordWait{word, done}
	e.Opcode, e.FD, e.UserData = uring.OpFutexWait, futexSize32, wordData+uint64(w)
	e.Addr, e.Off, e.Addr3 = uint64(uintptr(unsafe.Pointer(word))), uint64(value), futexAny
	return true
}

// EndWait ends waits for a futex.
func (q *ringQueue) EndWait(word *uint32) {
	for i := range q.words {
		if q.words[i].word != word {
			continue
		}
		e := q.ring.SQE()
		if e == nil {
			return
		}
		e.Opcode, e.FD, e.UserData, e.Addr = uring.OpCancel, -1, cancelData, wordData+uint64(i)
	}
}

// Close ends the queue.
func (q *ringQueue) Close() error {
	if q.inflight > 0 {
		return fmt.Errorf("close queue: %d operations are under way: %w", q.inflight, syscall.EBUSY)
	}
	var errs []error
	if q.fileSlots.used != nil {
		// The kernel takes a ring down some time after it is closed: devices
		// must be free at once.
		errs = append(errs, q.ring.UnregisterFiles())
	}
	if q.buffers.used != nil {
		errs = append(errs, q.ring.UnregisterBuffers())
	}
	errs = append(errs, q.ring.UnregisterRing(), q.ring.Close())
	if q.wakeFD >= 0 {
		errs = append(errs, unix.Close(q.wakeFD))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close queue: %w", err)
	}
	return nil
}
