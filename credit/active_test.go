package credit

import "testing"

// What was awaited is not looked at any more when it has come, also in a book whose
// clock never strikes.
func TestNothingAwaited(t *testing.T) {
	b := NewBook(Config{ID: 1}, 0)
	for id := range uint64(100) {
		q := Request{Resource: Resource{Access, id}, Credit: Make(Span{0, 10, Write})}
		for _, n := range []uint64{b.Acquire(1, q), b.Acquire(1, q)} { // the second one waits
			if err := b.Release(1, n, Version{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(b.active); n != 0 {
		t.Errorf("%d objects are looked at where nothing is awaited", n)
	}
}
