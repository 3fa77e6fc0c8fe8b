package mpool

import (
	"context"

	"github.com/mpool-go/mpool/sched"
)

// joiner waits for tasks and keeps the first error.
type joiner struct {
	mu   sched.Mutex
	cond sched.Cond
	// +checklocks:mu
	running int
	// +checklocks:mu
	err error
}

func (j *joiner) init(s *sched.Sched) {
	j.mu.Init(s, sched.RankQueue)
	j.cond.Init(s, &j.mu)
}

func (j *joiner) start(s *sched.Sched, name string, f func() error) {
	j.mu.Lock()
	j.running++
	j.mu.Unlock()
	s.Go(name, func() {
		err := f()
		j.mu.Lock()
		defer j.mu.Unlock()
		j.running--
		if j.err == nil {
			j.err = err
		}
		j.cond.Broadcast()
	})
}

// wait returns when all tasks have ended. They end by themselves, by their
// contexts at the latest.
func (j *joiner) wait() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.running > 0 {
		if err := j.cond.Wait(context.Background()); err != nil {
			return err
		}
	}
	return j.err
}
