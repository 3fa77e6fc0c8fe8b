package server

import (
	"log/slog"

	"github.com/mpool-go/mpool/bdev"
)

// What a drive may have under way on one loop: requests, and bytes unless it has
// none. A drive that hangs keeps no more of the loop's queue and of its kernel
// threads, so that others go on.
const (
	driveOps   = 64
	driveBytes = 16 << 20
)

// What the sessions that use a drive may have under way on it together, when
// they are several: each an equal part, but always one request. So a request of
// one that asks little waits for no more than this of one that asks much.
const (
	sharedOps   = 32
	sharedBytes = 4 << 20
)

// A session counts as one that uses a drive until so many requests of others were
// started after its last.
const shareAge = 512

// shareQuantum is how many bytes of one session's waiting requests are started
// before it is the next one's turn.
const shareQuantum = 256 << 10

// loopDrive is a drive that a loop does I/O on.
type loopDrive struct {
	loop *ioLoop
	dev  *bdev.Drive
	pool *activePool

	ops     int           // requests under way
	bytes   int64         // of those
	started uint64        // requests so far
	shares  []*driveShare // of sessions that use it, or did lately
	queue   []*driveShare // of those, that have requests waiting; the first is next
	waiting bool          // it is in the loop's list
}

// driveShare is a session's part in a drive.
type driveShare struct {
	set   *ringSet
	drive *loopDrive

	ops    int
	bytes  int64
	last   uint64 // drive.started at its last request
	credit int64  // bytes that may be started before it is the next one's turn
	wait   opList // begun, for the drive
	queued bool
	known  bool // it is in the drive's list
}

// drive returns the loop's part in a drive.
func (l *ioLoop) drive(dev *bdev.Drive, pool *activePool) *loopDrive {
	d := l.drives[dev]
	if d != nil {
		return d
	}
	d = &loopDrive{loop: l, dev: dev, pool: pool}
	l.drives[dev] = d
	if r, ok := l.queue.(bdev.Registrar); ok {
		// Without it operations only cost more.
		if err := r.RegisterDrive(dev); err != nil {
			l.srv.complaints.Warn("drive not registered", slog.String("drive", dev.Path()), slog.Any("error", err))
		}
	}
	return d
}

// shareOf returns the session's part in a drive.
func (set *ringSet) shareOf(dev *bdev.Drive, pool *activePool) *driveShare {
	for _, sh := range set.shares {
		if sh.drive.dev == dev {
			return sh
		}
	}
	sh := &driveShare{set: set, drive: set.loop.drive(dev, pool)}
	set.shares = append(set.shares, sh)
	return sh
}

// submit starts a request's operations, or has them wait for their turn.
func (l *ioLoop) submit(x *ringOp) {
	sh := x.ring.set.shareOf(x.device[0].Drive, x.pool)
	x.share = sh
	d := sh.drive
	if len(d.queue) == 0 && sh.admits(x) { // else what others wait for is theirs
		sh.start(x)
		return
	}
	sh.wait.add(x)
	if !sh.queued {
		sh.queued, sh.credit = true, 0
		d.queue = append(d.queue, sh)
	}
	if !d.waiting {
		d.waiting = true
		l.waiting = append(l.waiting, d)
	}
}

// admits says whether a request may be started now.
func (sh *driveShare) admits(x *ringOp) bool {
	d := sh.drive
	if d.ops >= driveOps || d.loop.queue.InFlight()+len(x.device) > loopDepth {
		return false
	}
	if sh.ops == 0 {
		return true
	}
	size := int64(x.d.Length)
	if n := d.users(sh); n > 1 {
		return sh.ops < max(sharedOps/n, 1) && sh.bytes+size <= sharedBytes/int64(n)
	}
	return d.bytes+size <= driveBytes
}

// users returns how many sessions use the drive.
func (d *loopDrive) users(sh *driveShare) int {
	if !sh.known {
		sh.known = true
		d.shares = append(d.shares, sh)
	}
	if len(d.shares) == 1 {
		return 1
	}
	kept := d.shares[:0]
	for _, o := range d.shares {
		if o == sh || o.ops > 0 || o.queued || d.started-o.last < shareAge {
			kept = append(kept, o)
		} else {
			o.known = false
		}
	}
	clear(d.shares[len(kept):])
	d.shares = kept
	return len(kept)
}

// start puts a request's operations on the queue.
func (sh *driveShare) start(x *ringOp) {
	d := sh.drive
	if !sh.known {
		sh.known = true
		d.shares = append(d.shares, sh)
	}
	d.started++
	sh.last = d.started
	size := int64(x.d.Length)
	sh.ops++
	sh.bytes += size
	d.ops++
	d.bytes += size
	for _, o := range x.device {
		if !d.loop.queue.Put(o) {
			panic("server: an I/O loop's queue is fuller than it says")
		}
	}
	if x.unsummed {
		d.loop.sums.add(x)
	}
}

// ended counts a request out whose operations have ended.
func (sh *driveShare) ended(x *ringOp) {
	d := sh.drive
	size := int64(x.d.Length)
	sh.ops--
	sh.bytes -= size
	d.ops--
	d.bytes -= size
	if d.ops == 0 && len(d.queue) == 0 {
		d.idle()
	}
}

// leave ends a share that has nothing under way.
func (sh *driveShare) leave() {
	sh.drive.shares = without(sh.drive.shares, sh)
}

// dispatchAll starts what waits for its turn and may be started.
func (l *ioLoop) dispatchAll() {
	kept := l.waiting[:0]
	for _, d := range l.waiting {
		d.dispatch()
		if d.waiting = len(d.queue) > 0; d.waiting {
			kept = append(kept, d)
		}
	}
	clear(l.waiting[len(kept):])
	l.waiting = kept
}

// dispatch starts waiting requests, those of the sessions in turn, until none of
// them may be started.
func (d *loopDrive) dispatch() {
	for refused := 0; refused < len(d.queue); {
		sh := d.queue[0]
		started, over := sh.serve()
		switch {
		case started:
			refused = 0
		case !over: // a session that has ended has left nothing to refuse
			refused++
		}
		copy(d.queue, d.queue[1:])
		d.queue[len(d.queue)-1] = sh
		if over {
			d.queue[len(d.queue)-1] = nil
			d.queue = d.queue[:len(d.queue)-1]
		}
	}
	if len(d.queue) == 0 && d.ops == 0 {
		d.idle()
	}
}

// serve starts what it is a session's turn for. over: it has nothing that waits.
func (sh *driveShare) serve() (started, over bool) {
	sh.credit = min(sh.credit+shareQuantum, shareQuantum)
	for x := sh.wait.head; x != nil; x = sh.wait.head {
		if sh.credit <= 0 {
			return true, false // its turn comes again
		}
		if !sh.admits(x) {
			return started, false
		}
		sh.wait.remove(x)
		sh.credit -= opCost + int64(x.d.Length)
		sh.start(x)
		started = true
	}
	sh.queued = false
	return started, true
}

// idle lets go of a drive whose pool is leaving.
func (d *loopDrive) idle() {
	if len(d.loop.leaving) > 0 && d.loop.leaving[d.pool] != nil {
		d.loop.release(d)
	}
}

// release lets go of a drive with nothing under way.
func (l *ioLoop) release(d *loopDrive) {
	if r, ok := l.queue.(bdev.Registrar); ok {
		if err := r.UnregisterDrive(d.dev); err != nil {
			l.srv.log.Error("drive stays registered", slog.String("drive", d.dev.Path()), slog.Any("error", err))
		}
	}
	delete(l.drives, d.dev)
	for _, sh := range d.shares {
		sh.known = false
	}
	for _, set := range l.sets {
		set.forgetDrive(d)
	}
	l.released(d.pool)
}

// forgetDrive drops a session's share in a drive that is let go of.
func (set *ringSet) forgetDrive(d *loopDrive) {
	for _, sh := range set.shares {
		if sh.drive == d {
			set.shares = without(set.shares, sh)
			return
		}
	}
}

// letGo lets go of a pool's drives, each when nothing is under way on it, and
// closes done after that.
func (l *ioLoop) letGo(a *activePool, done chan<- struct{}) {
	l.leaving[a] = append(l.leaving[a], done)
	for _, d := range l.drives {
		if d.pool == a && d.ops == 0 && len(d.queue) == 0 {
			l.release(d)
		}
	}
	l.released(a)
}

// released tells those who wait for it that no drive of a pool is left.
func (l *ioLoop) released(a *activePool) {
	for _, d := range l.drives {
		if d.pool == a {
			return
		}
	}
	for _, done := range l.leaving[a] {
		close(done)
	}
	delete(l.leaving, a)
}
