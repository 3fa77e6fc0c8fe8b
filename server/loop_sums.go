package server

// bulkBytes is from how many bytes on the checksums of a read or write wait for
// their turn, of which each has one: that of 64 KiB takes a few microseconds, as
// long as a turn of the loop with some small ones, that of loopMaxData 64 times as
// long.
const bulkBytes = 64 << 10

// sumNext computes the checksums of one write that the device is at, or verifies
// one read that it is through with, and says whether there was any. One in a
// turn, between which the loop takes what has come and gives the device its next:
// else the device has nothing to do while all those of a batch are looked at, and
// its next batch finds nobody at work. Who waits for what has ended is told
// before, and does not wait for the checksums too.
func (l *ioLoop) sumNext() bool {
	if l.sums.head == nil {
		return false
	}
	if l.reap() { // what was begun is started first
		l.check(l.queue.Submit())
	}
	l.tellAll()
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
