package server

// bulkBytes is from how many bytes on the checksums of a read or write wait for
// their turn: it takes about as long as a turn of the loop with many small ones.
const bulkBytes = 64 << 10

// sumNext computes the checksums of one write that the device is at, or verifies
// one read that it is through with, and says whether there was any. One in a
// turn, between which the loop takes what has come and gives the device its next:
// else the device has nothing to do while all those of a batch are looked at, and
// its next batch finds nobody at work.
func (l *ioLoop) sumNext() bool {
	if l.sums.head == nil {
		return false
	}
	l.reap() // what was begun is started first
	x := l.sums.take()
	if !x.unsummed {
		x.summed()
		return true
	}
	x.write.Sum()
	x.unsummed = false
	if x.through {
		x.summed()
	}
	return true
}
