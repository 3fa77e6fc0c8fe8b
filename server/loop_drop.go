package server

// drop drops what was taken of an ended session's rings and has not been started,
// and answers nobody. What a device has in hand goes on, and keeps the memory;
// what a log has in hand needs nothing of the session.
func (set *ringSet) drop() {
	set.over = true
	for _, sh := range set.shares {
		for x := sh.wait.takeLast(); x != nil; x = sh.wait.takeLast() {
			x.unstart()
		}
	}
	for x := set.appends.head; x != nil; x = set.appends.head {
		x.abandon()
	}
}

// unstart drops a request whose operations were not started. The last is dropped
// first, so that a write leaves no hole before another.
func (x *ringOp) unstart() {
	if x.verb == verbRead {
		x.read.Cancel()
	} else {
		x.write.Cancel() // of a put the object is aborted with the session's others
	}
	x.dismiss()
	x.unanswered()
}
