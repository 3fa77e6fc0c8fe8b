package sched

import (
	"context"
	"testing"
	"time"
)

func TestCanEnd(t *testing.T) {
	s := New(1)
	err := s.Run(func() {
		sim, cancel := s.WithCancel(context.Background())
		defer cancel()
		timed, stop := s.WithTimeout(context.WithValue(sim, t, 1), time.Second)
		defer stop()
		for name, c := range map[string]struct {
			ctx  context.Context
			want bool
		}{
			"background":       {context.Background(), false},
			"value":            {context.WithValue(context.Background(), t, 1), false},
			"simulated":        {sim, true},
			"simulated timed":  {timed, true},
			"value of it":      {context.WithValue(timed, t, 1), true},
			"of the test's":    {t.Context(), true},
			"without its end":  {context.WithoutCancel(t.Context()), false},
			"other background": {context.TODO(), false},
		} {
			if got := s.CanEnd(c.ctx); got != c.want {
				t.Errorf("%s: %v", name, got)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var none *Sched
	ctx, cancel := none.WithCancel(context.Background())
	defer cancel()
	if none.CanEnd(context.Background()) || !none.CanEnd(ctx) {
		t.Error("real contexts")
	}
}
