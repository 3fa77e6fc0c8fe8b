package sched

import (
	"context"
	"testing"
	"time"
)

// While a task can run, the clock stands, whatever timers were given up.
func TestClockStandsWhileTasksRun(t *testing.T) {
	for seed := range uint64(50) {
		s := New(seed)
		err := s.Run(func() {
			s.Post(time.Hour, func() {})
			asleep := false
			s.Go("sleeper", func() {
				asleep = true
				if err := s.Sleep(context.Background(), time.Second); err != nil {
					t.Error(err)
				}
				start := s.Now()
				for range 100 {
					s.Yield()
				}
				if d := s.Now().Sub(start); d > 0 {
					t.Errorf("seed %d: %v passed while tasks ran", seed, d)
				}
			})
			for !asleep {
				s.Yield()
			}
			// Timers that are due when the sleeper wakes, and given up.
			for range 20 {
				_, cancel := s.WithTimeout(context.Background(), time.Second)
				cancel()
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
