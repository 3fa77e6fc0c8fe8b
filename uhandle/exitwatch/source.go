package exitwatch

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/uhandle"
)

// The defaults of [Options].
const (
	DefaultProcesses = 1 << 14
	DefaultRing      = 1 << 18
)

// Options are what [Open] can be told. The zero value is good.
type Options struct {
	// Processes are watched at one time at most; more are refused. The kernel
	// takes about 80 bytes for each, at once. 0: [DefaultProcesses].
	Processes int
	// Ring is the size of the ring buffer in bytes, a power of two and at least
	// a page. A death takes 32 until it is read. 0: [DefaultRing].
	Ring int
	// Trouble, if set, is told what is wrong when deaths begin to be missed: once
	// for want of room in the ring, and once if the program does not tell them
	// at all any more. It is called by whoever ends a watch.
	Trouble func(error)

	noGroupDead bool      // as on a kernel that does not pass it
	types       *btf.Spec // the kernel's; nil: read them
}

// Source notices deaths by the exit tracepoint. Safe for concurrent use.
type Source struct {
	early  bool
	prompt bool
	maps   maps
	prog   *ebpf.Program
	reader *ringbuf.Reader
	// link holds the program to the tracepoint for as long as it is reachable:
	// when it is collected as garbage, the kernel lets go without a word. The
	// goroutine that reads holds the Source, and so the link, until Close.
	link link.Link
	read chan struct{} // closed when the goroutine has ended

	noticed atomic.Uint64 // see Stats
	refused atomic.Uint64
	broken  atomic.Uint64 // records that cannot be read: lost
	silent  atomic.Int32  // deaths in a row that the program has not told

	trouble func(error)
	told    [2]atomic.Bool // which trouble was

	mu sync.Mutex
	// +checklocks:mu
	closed bool
	// watches are those of each process, by its number: a list.
	// +checklocks:mu
	watches map[uint64]*watch
}

// watch is one call of Watch.
type watch struct {
	next *watch // of the same process; guarded by Source.mu
	p    *uhandle.Process
	from time.Time
	died func(uhandle.Death)
	told chan struct{} // closed when died has returned

	taken   bool // it will be told; guarded by Source.mu
	stopped bool // so is this
}

// Open loads the program and attaches it. The error says what is missing; it is
// [ErrNotSupported] if that is the kernel's, and [os.ErrPermission] if it is
// the right to (CAP_BPF and CAP_PERFMON). Close the Source.
func Open(o Options) (*Source, error) {
	if o.Processes == 0 {
		o.Processes = DefaultProcesses
	}
	if o.Ring == 0 {
		o.Ring = DefaultRing
	}
	s := &Source{watches: make(map[uint64]*watch), read: make(chan struct{}), trouble: o.Trouble}
	if err := s.load(&o); err != nil {
		s.release()
		return nil, fmt.Errorf("watch exits: %w", explain(err))
	}
	prompt := make(chan bool)
	go s.readAll(prompt)
	s.prompt = <-prompt
	return s, nil
}

// explain adds to an error what is likely to be behind it.
func explain(err error) error {
	if errors.Is(err, unix.EPERM) { // EACCES is the kernel's verdict on a program
		return fmt.Errorf("it takes CAP_BPF and CAP_PERFMON: %w", unix.EPERM)
	}
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, os.ErrNotExist) || errors.Is(err, btf.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	return err
}

// load makes the maps, the program and the link.
func (s *Source) load(o *Options) error {
	types, err := o.types, error(nil)
	if types == nil {
		types, err = btf.LoadKernelSpec()
	}
	if err != nil {
		return fmt.Errorf("read the kernel's type information: %w", err)
	}
	k, err := probe(types)
	if err != nil {
		return err
	}
	k.groupDead = k.groupDead && !o.noGroupDead
	s.early = k.groupDead
	if err := k.prove(types); err != nil {
		return err
	}
	if err := s.maps.make(o); err != nil {
		return err
	}
	if s.prog, err = ebpf.NewProgramWithOptions(k.watcher(&s.maps), ebpf.ProgramOptions{KernelTypes: types}); err != nil {
		return err
	}
	if s.reader, err = ringbuf.NewReader(s.maps.ring); err != nil {
		return err
	}
	return s.attach()
}

func (s *Source) attach() error {
	l, err := link.AttachTracing(link.TracingOptions{Program: s.prog})
	if err != nil {
		return err
	}
	s.link = l
	return nil
}

// make makes the maps.
func (m *maps) make(o *Options) error {
	for _, v := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&m.watched, ebpf.MapSpec{Name: "mpool_watched", Type: ebpf.Hash, KeySize: 8, ValueSize: 1, MaxEntries: uint32(o.Processes)}},
		{&m.ring, ebpf.MapSpec{Name: "mpool_deaths", Type: ebpf.RingBuf, MaxEntries: uint32(o.Ring)}},
		{&m.lost, ebpf.MapSpec{Name: "mpool_lost", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}},
	} {
		made, err := ebpf.NewMap(&v.spec)
		if err != nil {
			return fmt.Errorf("map %s: %w", v.spec.Name, err)
		}
		*v.to = made
	}
	return nil
}

// Close detaches the program. What is watched is not told any more; the stop
// functions may still be called.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.release()
	<-s.read
}

// release lets go of what the kernel has, which ends the goroutine.
func (s *Source) release() {
	// The link first, so that nothing runs that uses the rest. None of them has
	// anything to lose.
	if s.link != nil {
		_ = s.link.Close()
	}
	if s.reader != nil {
		_ = s.reader.Close()
	}
	if s.prog != nil {
		_ = s.prog.Close()
	}
	for _, m := range []*ebpf.Map{s.maps.watched, s.maps.ring, s.maps.lost} {
		_ = m.Close() // nil is allowed
	}
}

// Stats are what a Source has done since it was opened.
type Stats struct {
	Up        bool   // it notices deaths: it is open, can read the ring, and the program tells them
	Processes int    // watched now
	Noticed   uint64 // deaths of processes that were watched
	Lost      uint64 // deaths for which the ring had no room, which others noticed
	Refused   uint64 // watches for which the map had no room
}

// Stats returns the counters. It waits for nothing, and may be called by
// anybody at any time.
func (s *Source) Stats() Stats {
	st := Stats{Noticed: s.noticed.Load(), Refused: s.refused.Load(), Lost: s.broken.Load()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return st
	}
	st.Processes = len(s.watches)
	select {
	case <-s.read:
	default:
		st.Up = s.silent.Load() < silentMost
	}
	st.Lost += s.overrun()
	return st
}

// overrun returns how many records there was no room for in the ring.
func (s *Source) overrun() (lost uint64) {
	_ = s.maps.lost.Lookup(uint32(0), &lost) //nolint:errcheck // it has that one number
	return lost
}

// Name implements [uhandle.Source].
func (*Source) Name() string { return "bpf" }

// Early says whether deaths are noticed before the memory of the dead is torn
// down (Linux 6.16), and not only after.
func (s *Source) Early() bool { return s.early }

// Prompt says whether the thread that reads the records goes before others that
// could run. It takes CAP_SYS_NICE, or a limit on niceness (RLIMIT_NICE) that allows
// -20. Without, it may wait for a processor for some milliseconds when all are busy:
// with the dying process itself, for one.
func (s *Source) Prompt() bool { return s.prompt }

// errClosed is returned by Watch after Close.
var errClosed = errors.New("watch exits: closed")

// Watch implements [uhandle.Source]. It misses a death that came before it.
func (s *Source) Watch(p *uhandle.Process, died func(uhandle.Death)) (stop func(), err error) {
	process := p.Inode()
	if process == 0 {
		return nil, fmt.Errorf("watch the exit of process %d: its pidfd has no number", p.PID)
	}
	w := &watch{died: died, told: make(chan struct{}), p: p, from: time.Now()} //nolint:forbidigo // of the machine, as deaths are
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	w.next = s.watches[process]
	if w.next == nil {
		if err := s.maps.watched.Put(process, uint8(0)); err != nil {
			s.refused.Add(1)
			return nil, fmt.Errorf("watch the exit of process %d: %w", p.PID, err)
		}
	}
	s.watches[process] = w
	return func() { s.stop(process, w) }, nil
}

// stop ends a watch. When it returns died is not running.
func (s *Source) stop(process uint64, w *watch) {
	s.mu.Lock()
	taken, lost := w.taken, uint64(0)
	missed := s.missedLocked(w)
	if missed {
		lost = s.overrun()
	}
	if !taken && !w.stopped {
		s.removeLocked(process, w)
	}
	w.stopped = true
	s.mu.Unlock()
	if taken {
		<-w.told
	}
	if missed {
		s.miss(lost)
	}
}

// How it is noticed that the program does not tell deaths any more. A process may
// have been dying when its watch began, or been told just now: that is not counted,
// or not so often in a row.
const (
	watchedLong = time.Second // a watch that had to tell
	silentMost  = 3           // deaths in a row that were not told
)

// missedLocked says whether a death should have been told by now: it is not in the
// ring, and if it is being told it is the only one.
//
// +checklocks:s.mu
func (s *Source) missedLocked(w *watch) bool {
	return !w.taken && !w.stopped && !s.closed && time.Since(w.from) > watchedLong && w.p.Dead() && s.reader.AvailableBytes() == 0
}

// miss counts a death that was not told, and tells if that means something.
func (s *Source) miss(lost uint64) {
	silent := s.silent.Add(1)
	if s.trouble == nil {
		return
	}
	if lost > 0 && !s.told[0].Swap(true) {
		s.trouble(fmt.Errorf("%d deaths found no room in its buffer of records", lost))
	}
	if silent >= silentMost && !s.told[1].Swap(true) {
		s.trouble(fmt.Errorf("it has not told the last %d deaths", silent))
	}
}

// removeLocked takes a watch out of its process's list, and the process out of
// the kernel's map if it was the last.
//
// +checklocks:s.mu
func (s *Source) removeLocked(process uint64, w *watch) {
	first := s.watches[process]
	if first == w {
		first = w.next
	} else {
		for l := first; l != nil; l = l.next {
			if l.next == w {
				l.next = w.next
			}
		}
	}
	if first != nil {
		s.watches[process] = first
		return
	}
	s.forgetLocked(process)
}

// forgetLocked takes a process out of both maps.
//
// +checklocks:s.mu
func (s *Source) forgetLocked(process uint64) {
	delete(s.watches, process)
	if !s.closed {
		_ = s.maps.watched.Delete(process) //nolint:errcheck // it is there
	}
}

// readAll takes records out of the ring until that is closed. It says whether its
// thread goes before others.
func (s *Source) readAll(prompt chan<- bool) {
	first, goOn := goFirst()
	defer close(s.read) // which Close waits for
	defer goOn()
	prompt <- first
	var r ringbuf.Record
	for {
		if err := s.reader.ReadInto(&r); err != nil {
			return
		}
		s.silent.Store(0)
		d, err := decodeRecord(r.RawSample)
		if err != nil {
			s.broken.Add(1)
			continue
		}
		s.tell(d)
	}
}

// tell tells those that watch a process that it has died.
func (s *Source) tell(d record) {
	s.mu.Lock()
	w := s.watches[d.process]
	for l := w; l != nil; l = l.next {
		l.taken = true
	}
	if w != nil {
		s.forgetLocked(d.process)
	}
	s.mu.Unlock()
	if w == nil {
		return // its watch was stopped, or it was told already
	}
	s.noticed.Add(1)
	death := uhandle.FromStatus(int(d.status))
	death.At = d.at
	for ; w != nil; w = w.next {
		w.died(death)
		close(w.told)
	}
}
