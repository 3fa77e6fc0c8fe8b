package bdev

import "github.com/mpool-go/mpool/sched"

// room hands out a bounded number of places in arrival order. It is guarded by
// its owner's mutex; the owner waits for its completions.
type room struct {
	total, used int // used: taken, granted or forced; with the last it may be more than total
	waiting     []*roomWaiter
}

// roomWaiter is somebody who waits for places.
type roomWaiter struct {
	want, granted int
	done          sched.Completion // granted > 0
}

// take takes up to n places at once and returns how many.
func (r *room) take(n int) int {
	if len(r.waiting) > 0 {
		return 0 // whoever came first goes first
	}
	n = max(min(n, r.total-r.used), 0)
	r.used += n
	return n
}

// wait queues for up to n places.
func (r *room) wait(n int) *roomWaiter {
	w := &roomWaiter{want: n}
	r.waiting = append(r.waiting, w)
	return w
}

// give returns n places, of which waiters get what they want.
func (r *room) give(n int) {
	r.used -= n
	for len(r.waiting) > 0 && r.used < r.total {
		w := r.waiting[0]
		r.waiting = append(r.waiting[:0], r.waiting[1:]...)
		w.granted = min(w.want, r.total-r.used)
		r.used += w.granted
		w.done.Done()
	}
}

// leave ends a wait, whatever it has come to.
func (r *room) leave(w *roomWaiter) {
	for i, v := range r.waiting {
		if v == w {
			r.waiting = append(r.waiting[:i], r.waiting[i+1:]...)
			return
		}
	}
	r.give(w.granted)
}

// cancel ends operations that were never started, with the reason.
func cancel(ops []*Op, err error) {
	for _, o := range ops {
		o.Complete(err)
	}
}
