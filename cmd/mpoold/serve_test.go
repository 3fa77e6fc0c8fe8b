package main

import "testing"

// Go's scheduler gets a processor more for each loop, and never more than twice what there
// are.
func TestProcessors(t *testing.T) {
	for _, c := range []struct{ n, loops, want int }{
		{1, 1, 2}, {2, 1, 3}, {4, 2, 6}, {4, 4, 8}, {4, 64, 8}, {1, 64, 2}, {128, 64, 192},
	} {
		if got := processors(c.n, c.loops); got != c.want {
			t.Errorf("%d processors, %d loops: %d, want %d", c.n, c.loops, got, c.want)
		}
	}
	if got := processors(64, 0); got <= 64 || got > 68 {
		t.Errorf("64 processors, the default of loops: %d, want 1 to 4 more", got)
	}
}
