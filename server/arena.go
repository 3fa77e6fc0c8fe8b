package server

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/scope"
)

// arena is a memory file that a session shares with its client. The client can
// change its bytes at any moment, but once it is sealed not its size, nor take
// pages from it: an access never faults.
type arena struct {
	size    int64
	release func(Resource, int64) // gives back what was reserved for it

	mu sync.Mutex
	// +checklocks:mu
	fd int // until it is sealed, else -1
	// +checklocks:mu
	mem []byte
	// +checklocks:mu
	sealing bool // somebody is at that
	// +checklocks:mu
	sealed bool
	// +checklocks:mu
	huge int64 // bytes on huge pages, once it is sealed
	// +checklocks:mu
	users int // the session and requests; at 0 it is unmapped
}

// newArena makes an arena. Its bytes and one descriptor are reserved, and are
// released with it, or by newArena if there is none.
func newArena(size int64, release func(Resource, int64)) (*arena, error) {
	fd, err := unix.MemfdCreate("mpool-arena", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3
		fd, err = unix.MemfdCreate("mpool-arena", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		release(Descriptors, 1)
		release(ArenaBytes, size)
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	a := &arena{size: size, release: release, fd: fd, users: 1}
	if err := unix.Ftruncate(fd, size); err != nil {
		a.unuse()
		return nil, fmt.Errorf("size memory file: %w", err)
	}
	if a.mem, err = mapArena(fd, size); err != nil {
		a.unuse()
		return nil, err
	}
	return a, nil
}

// dup returns another descriptor of a new arena's memory file.
func (a *arena) dup() (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return unix.FcntlInt(uintptr(a.fd), unix.F_DUPFD_CLOEXEC, 0)
}

// seal makes the arena safe to touch. The client has mapped it by now: a
// writable mapping cannot be made any more.
func (a *arena) seal() error {
	if err := a.trySeal(); err != nil {
		return err
	}
	a.release(Descriptors, 1)
	return nil
}

func (a *arena) trySeal() error {
	fd, mem, err := a.beginSeal()
	if err != nil {
		return err
	}
	defer a.unuse()
	huge, err := sealFile(fd, mem)
	a.endSeal(huge, err)
	return err
}

// beginSeal returns what is to be sealed, in use until that is over. It takes a
// while, in which nobody is to wait for the arena.
func (a *arena) beginSeal() (fd int, mem []byte, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sealing || a.sealed || a.fd < 0 {
		return 0, nil, fmt.Errorf("arena: %w", unix.EALREADY)
	}
	a.sealing = true
	a.users++
	return a.fd, a.mem, nil
}

func (a *arena) endSeal(huge int64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sealing = false
	if err != nil {
		return
	}
	a.sealed, a.huge = true, huge
	_ = unix.Close(a.fd) // memory has nothing to write back
	a.fd = -1
}

// sealFile seals a memory file, and puts its bytes where they stay. It returns how
// many are on huge pages.
func sealFile(fd int, mem []byte) (huge int64, err error) {
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return 0, fmt.Errorf("seal arena: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("seal arena: %w", err)
	}
	size := int64(len(mem))
	if st.Size != size {
		return 0, fmt.Errorf("seal arena: %d bytes became %d: %w", size, st.Size, unix.EINVAL)
	}
	huge = onHugePages(mem)
	// Pages that are there now stay there.
	if err := unix.Fallocate(fd, 0, 0, size); err != nil {
		return 0, fmt.Errorf("fill arena: %w", err)
	}
	return huge, nil
}

// use returns the bytes of a window; unuse is then called once. It does not wait
// for a seal that is under way: loops call it. The error is
// nil only if all of them lie within the sealed arena.
func (a *arena) use(w ioctl.Window) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch end := uint64(w.Offset) + uint64(w.Length); {
	case !a.sealed || a.users == 0:
		return nil, api.Errorf(api.EINVAL, "", "arena %d is not mapped yet", w.Arena)
	case w.Offset%ioctl.ArenaAlign != 0:
		return nil, api.Errorf(api.EINVAL, "", "offset %d into the arena is no multiple of %d", w.Offset, ioctl.ArenaAlign)
	case end > uint64(len(a.mem)):
		return nil, api.Errorf(api.EINVAL, "", "%d bytes at %d are outside the arena of %d", w.Length, w.Offset, len(a.mem))
	default:
		a.users++
		return a.mem[w.Offset:end:end], nil
	}
}

// useAgain is one more use, by who has one.
func (a *arena) useAgain() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.users++
}

// unuse ends a use; the last one unmaps the arena.
func (a *arena) unuse() {
	ended, open := a.tryEnd()
	if !ended {
		return
	}
	if open {
		a.release(Descriptors, 1)
	}
	a.release(ArenaBytes, a.size)
}

// tryEnd ends a use, and says whether it was the last and whether the memory
// file was still open.
func (a *arena) tryEnd() (ended, open bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.users--
	if a.users > 0 {
		return false, false
	}
	if a.mem != nil {
		unmapArena(a.mem)
		a.mem = nil
	}
	if open = a.fd >= 0; open {
		_ = unix.Close(a.fd) // memory has nothing to write back
		a.fd = -1
	}
	return true, open
}

// arenaAsk makes an arena for the session. The descriptor goes with the reply.
func arenaAsk(r *request, m *ioctl.ArenaAsk) (ioctl.Message, error) {
	s, limits := r.s, &r.s.srv.limits
	size := int64(m.Size)
	if m.Size == 0 {
		size = limits.ArenaDefault
	}
	if m.Size > math.MaxUint32 || size%ioctl.ArenaAlign != 0 || size > limits.ArenaSession {
		return nil, api.Errorf(api.EINVAL, "", "an arena of %d bytes: want a multiple of %d up to %d",
			m.Size, ioctl.ArenaAlign, limits.ArenaSession)
	}
	id, err := s.reserveArena(size)
	if err != nil {
		return nil, err
	}
	if err := s.admitArena(size); err != nil {
		s.unreserveArena(id, size)
		return nil, err
	}
	a, err := newArena(size, s.unreserve)
	if err != nil {
		s.unreserve(Descriptors, 1) // the reply's
		s.unreserveArena(id, size)
		return nil, &api.Error{Code: api.ENOMEM, Detail: "no memory for an arena", Err: err}
	}
	// The reply has a descriptor of its own: the arena's is closed when the
	// client says that it has mapped it, which a hostile one says at any time.
	r.fd, err = a.dup()
	if err != nil {
		s.unreserve(Descriptors, 1)
		a.unuse()
		s.unreserveArena(id, size)
		return nil, &api.Error{Code: api.ENOMEM, Detail: "no descriptor for an arena", Err: err}
	}
	if !s.putArena(id, a) {
		return nil, api.Errorf(api.ECANCELED, "", "the session has ended")
	}
	return &ioctl.ArenaReply{Arena: id, Size: uint64(size)}, nil
}

// admitArena reserves an arena: its bytes, its descriptor, and the one that goes
// with the reply.
func (s *session) admitArena(size int64) error {
	if err := s.reserve(ArenaBytes, size); err != nil {
		return err
	}
	if err := s.reserve(Descriptors, 2); err != nil {
		s.unreserve(ArenaBytes, size)
		return err
	}
	return nil
}

// arenaMapped seals an arena that the client has mapped.
func arenaMapped(r *request, m *ioctl.ArenaMapped) (ioctl.Message, error) {
	a := r.s.arena(m.Arena)
	if a == nil {
		return nil, api.Errorf(api.EINVAL, "", "no arena %d", m.Arena)
	}
	if err := a.seal(); err != nil {
		return nil, &api.Error{Code: api.ENOMEM, Detail: "the arena cannot be used", Err: err}
	}
	r.s.srv.log.Debug("arena mapped", r.s.who(), slog.Int64("bytes", a.size), slog.Int64("huge_bytes", a.hugeBytes()))
	return &ioctl.Empty{}, nil
}

// reserveArena counts an arena of the given size and returns its number.
func (s *session) reserveArena(size int64) (uint16, error) {
	limits := &s.srv.limits
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return 0, api.Errorf(api.ECANCELED, "", "the session has ended")
	case len(s.arenas)-len(s.freeArenas) >= limits.Arenas:
		return 0, api.Errorf(api.EAGAIN, "", "the session has %d arenas, as many as it may; to change: [limits] arenas in mpoold's configuration", limits.Arenas)
	case s.arenaBytes+size > limits.ArenaSession:
		return 0, api.Errorf(api.EAGAIN, "", "%d bytes of arenas and %d asked for: at most %d; to change: [limits] arena_session in mpoold's configuration",
			s.arenaBytes, size, limits.ArenaSession)
	}
	if total, most := s.srv.arenaBytes.Add(size), s.srv.arenasMost(); total > most {
		s.srv.arenaBytes.Add(-size)
		return 0, api.Errorf(api.EAGAIN, "", "%d bytes of arenas in the daemon and %d asked for: at most %d; to change: [limits] arena_total and %s",
			total-size, size, most, scopeSetting(scope.SystemName, scope.Memory))
	}
	s.arenaBytes += size
	if n := len(s.freeArenas); n > 0 {
		id := s.freeArenas[n-1]
		s.freeArenas = s.freeArenas[:n-1]
		return id, nil
	}
	s.arenas = append(s.arenas, nil)
	return uint16(len(s.arenas)), nil
}

// unreserveArena gives back what reserveArena counted, of an arena that could
// not be made.
func (s *session) unreserveArena(id uint16, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return // dropArenas gave it back
	}
	s.arenaBytes -= size
	s.srv.arenaBytes.Add(-size)
	s.freeArenas = append(s.freeArenas, id)
}

// putArena gives the session its arena, or ends it if the session has ended.
func (s *session) putArena(id uint16, a *arena) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		a.unuse()
		return false
	}
	s.arenas[id-1] = a
	return true
}

// arena returns an arena by its number, or nil.
func (s *session) arena(id uint16) *arena {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == 0 || int(id) > len(s.arenas) {
		return nil
	}
	return s.arenas[id-1]
}

// dropArenas gives all arenas back; requests that use one keep it mapped until
// they end.
func (s *session) dropArenas() {
	s.mu.Lock()
	arenas, bytes := s.arenas, s.arenaBytes
	s.arenas, s.arenaBytes = nil, 0
	s.mu.Unlock()
	s.srv.arenaBytes.Add(-bytes)
	for _, a := range arenas {
		if a != nil {
			s.srv.remap(a.unuse)
		}
	}
}

// maxRemapping is how many goroutines at one time make or end mappings that no
// request waits for.
const maxRemapping = 4

// remap calls f, which changes the daemon's mappings, when few others do: of those
// who do at one time the kernel lets one go on, and each of the others keeps a thread.
func (s *Server) remap(f func()) {
	s.remapping <- struct{}{}
	defer func() { <-s.remapping }()
	f()
}
