package server

import (
	"container/heap"
	"time"
)

// turnCost is what a turn costs in bytes, more than the data that it moves.
// saved is how many bytes a process that has asked for little may be ahead of
// those that always ask.
const (
	turnCost = 4 << 10
	saved    = 64 << 10
)

// lane is the places of one kind and who waits for them.
//
// Each process has a mark: the bytes that it has had, turns included, counted
// from when it had last asked for less than its share. The one with the lowest
// mark is next (start-time fair queueing). So those that always ask advance
// together, and who asks seldom is next whenever he asks.
type lane struct {
	places   int           // how many run at one time
	maxBytes int64         // of data, all together, unless only one runs
	slice    time.Duration // after which a place is lent

	running list  // in the order in which their turns began; without those whose place is lent
	bytes   int64 // of these
	waiting queues
	mark    int64 // the highest that was served
	timing  bool  // a timer runs
}

// wait lets a task wait in its process's queue.
func (l *lane) wait(q *queue, t *task) {
	q.tasks.push(t)
	if q.tasks.n == 1 {
		q.mark = max(q.mark, l.mark-saved)
		heap.Push(&l.waiting, q)
	}
}

// withdraw takes back a task that waits.
func (l *lane) withdraw(q *queue, t *task) {
	q.tasks.remove(t)
	if q.tasks.n == 0 {
		heap.Remove(&l.waiting, q.at)
	}
}

// pick lets the next task run, if one waits and there is a place for it.
func (l *lane) pick() *task {
	if len(l.waiting) == 0 {
		return nil
	}
	q := l.waiting[0]
	t := q.tasks.first
	if l.running.n >= l.places || l.running.n > 0 && l.bytes+t.size > l.maxBytes {
		return nil
	}
	l.mark = max(l.mark, q.mark)
	q.mark += turnCost + t.size
	q.tasks.remove(t)
	if q.tasks.n == 0 {
		heap.Pop(&l.waiting)
	} else {
		heap.Fix(&l.waiting, 0)
	}
	l.running.push(t)
	l.bytes += t.size
	return t
}

// leave takes a place from a task that runs.
func (l *lane) leave(t *task) {
	l.running.remove(t)
	l.bytes -= t.size
}

// queue is what waits of one kind and process.
type queue struct {
	tasks list
	mark  int64
	at    int // in queues, if it has tasks
}

// queues is a heap of queues that have tasks, the lowest mark first.
type queues []*queue

// Len is for package heap, as all of these are.
func (h *queues) Len() int { return len(*h) }

// Less says which of two is before the other.
func (h *queues) Less(i, j int) bool { return (*h)[i].mark < (*h)[j].mark }

// Swap makes two change their places.
func (h *queues) Swap(i, j int) {
	l := *h
	l[i], l[j] = l[j], l[i]
	l[i].at, l[j].at = i, j
}

// Push appends one.
func (h *queues) Push(x any) {
	q, ok := x.(*queue)
	if !ok {
		panic("server: what waits is no queue")
	}
	q.at = len(*h)
	*h = append(*h, q)
}

// Pop takes the last.
func (h *queues) Pop() any {
	last := len(*h) - 1
	q := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return q
}

// list is a list of tasks. A task is in one at most.
type list struct {
	first, last *task
	n           int
}

func (l *list) push(t *task) {
	t.in, t.prev, t.next = l, l.last, nil
	if l.last == nil {
		l.first = t
	} else {
		l.last.next = t
	}
	l.last = t
	l.n++
}

func (l *list) remove(t *task) {
	if t.prev == nil {
		l.first = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		l.last = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.in, t.prev, t.next = nil, nil, nil
	l.n--
}
