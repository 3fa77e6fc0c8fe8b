package hostile

import (
	"math"
	"os"
	"os/exec"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/test/daemon"
)

// hoardWaits keeps all its requests waiting for events.
func hoardWaits(a *attacker) {
	w := a.greet()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	for tag := range uint64(100) {
		_ = w.Conn.SetDeadline(time.Now().Add(soon)) // then the next call fails
		if !a.throw(w, a.message(ioctl.OpEventNext, tag, &ioctl.EventNext{After: math.MaxUint32, Wait: ioctl.MaxEventWait}), nil) {
			break
		}
	}
	select {
	case <-a.ctx.Done():
	case <-time.After(soon):
	}
}

// connects connects and leaves.
func connects(a *attacker) {
	if w := a.dial(); w != nil {
		if a.rng.IntN(2) == 0 {
			a.throw(w, a.message(ioctl.OpHello, 1, daemon.Hello()), nil)
		}
		w.Conn.Close()
	}
}

// connectsSilent makes many connections and says nothing.
func connectsSilent(a *attacker) {
	var list []*daemon.Raw
	for range 100 {
		if w := a.dial(); w != nil {
			list = append(list, w)
		}
	}
	select {
	case <-a.ctx.Done():
	case <-time.After(soon):
	}
	for _, w := range list {
		w.Conn.Close()
	}
}

// helloAndTags greets again, uses tags twice and cancels everything.
func helloAndTags(a *attacker) {
	w, pool := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	for range 50 {
		for tag := range uint64(10) {
			if !a.throw(w, a.message(ioctl.OpPoolShow, 1000+tag, &ioctl.PoolShow{Pool: pool}), nil) ||
				!a.throw(w, a.message(ioctl.OpCancel, 0, &ioctl.Cancel{Tag: 1000 + a.rng.Uint64N(10)}), nil) {
				return
			}
		}
		a.drain(w)
	}
	if a.rng.IntN(2) == 0 {
		a.throw(w, a.message(ioctl.OpHello, 1, daemon.Hello()), nil)
	} else {
		for range 10 {
			a.throw(w, a.message(ioctl.OpEventNext, 7, &ioctl.EventNext{After: math.MaxUint32, Wait: 1000}), nil)
		}
	}
	a.drain(w)
}

// descriptors attaches some to its messages.
func descriptors(a *attacker) {
	w := a.greet()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	fd, err := unix.MemfdCreate("hostile", unix.MFD_CLOEXEC)
	check(err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	check(err)
	var fds []int
	for range 1 + a.rng.IntN(200) {
		fds = append(fds, slices.Concat(pair[:], []int{fd})[a.rng.IntN(3)])
	}
	m := a.message(ioctl.OpVersion, 1, &ioctl.Empty{})
	if a.rng.IntN(3) == 0 {
		m = a.bytes(1 + a.rng.IntN(30))
	}
	a.throw(w, m, unix.UnixRights(fds...))
	for _, fd := range []int{fd, pair[0], pair[1]} {
		check(unix.Close(fd))
	}
	a.drain(w)
}

// handlesOfOthers guesses handles: those of another session, those near them,
// and any.
func handlesOfOthers(a *attacker) {
	w, pool := a.open()
	other, othersPool := a.open()
	if w == nil || other == nil {
		for _, x := range []*daemon.Raw{w, other} {
			if x != nil {
				x.Conn.Close()
			}
		}
		return
	}
	defer w.Conn.Close()
	defer other.Conn.Close()
	h := a.give(other, ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: othersPool, Options: api.AllocOptions{Capacity: 4096}})
	for tag := range uint64(500) {
		guess := h
		switch a.rng.IntN(4) {
		case 0:
			guess = pool + ioctl.Handle(a.rng.IntN(64))<<(8*a.rng.IntN(8))
		case 1:
			guess = ioctl.Handle(a.rng.Uint64())
		case 2:
			guess += ioctl.Handle(a.rng.IntN(16))
		}
		op := []ioctl.Op{ioctl.OpObjectInfo, ioctl.OpObjectAbort, ioctl.OpObjectDelete, ioctl.OpClose, ioctl.OpObjectGet}[a.rng.IntN(5)]
		if guess == pool && op == ioctl.OpClose {
			continue
		}
		if !a.throw(w, a.message(op, 1000+tag, &ioctl.Target{Handle: guess}), nil) {
			return
		}
		if tag%32 == 31 {
			a.drain(w)
		}
	}
}

// handlesInUse closes, aborts and deletes what other requests of the same
// session are using.
func handlesInUse(a *attacker) {
	w, pool := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	b := a.give(w, ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}})
	data := ioctl.InlinePayload(make([]byte, 8192))
	for tag := range uint64(40) {
		var m []byte
		switch a.rng.IntN(5) {
		case 0:
			m = a.message(ioctl.OpMblockWrite, tag+100, &ioctl.MblockWrite{Mblock: b, Total: 8192, Data: data})
		case 1, 2:
			m = a.message(ioctl.OpMblockRead, tag+100, &ioctl.MblockRead{Mblock: b, Into: ioctl.Window{Length: 8192}})
		case 3:
			m = a.message(ioctl.OpObjectInfo, tag+100, &ioctl.Target{Handle: b})
		default:
			op := []ioctl.Op{ioctl.OpClose, ioctl.OpObjectAbort, ioctl.OpObjectCommit, ioctl.OpObjectDelete}[a.rng.IntN(4)]
			m = a.message(op, tag+100, &ioctl.Target{Handle: b})
		}
		if !a.throw(w, m, nil) {
			return
		}
	}
	a.drain(w)
}

// strangers lets another process talk on its socket.
func strangers(a *attacker) {
	w, _ := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	file, err := w.Conn.File()
	check(err)
	defer file.Close()
	cmd := exec.CommandContext(a.ctx, "/proc/self/exe")
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool {
		return len(s) > len(envRole) && s[:len(envRole)] == envRole
	}), envRole+"=stranger")
	cmd.ExtraFiles = []*os.File{file}
	if err := cmd.Start(); err != nil {
		time.Sleep(soon) // it may not run this binary
		return
	}
	for range 2000 {
		_ = w.Conn.SetDeadline(time.Now().Add(soon)) // then the next call fails
		a.sent.Add(1)
		if _, err := w.Conn.Read(a.buf); err != nil {
			break
		}
	}
	_ = cmd.Process.Kill() // it may have ended
	_ = cmd.Wait()         // "signal: killed" is what is wanted
}

// forged sends messages with the credentials of other processes, as root may.
func forged(a *attacker) {
	w, pool := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	for tag := range uint64(64) {
		cred := &unix.Ucred{Pid: int32(os.Getppid())}
		if a.rng.IntN(2) == 0 {
			cred = &unix.Ucred{Pid: 1, Uid: a.rng.Uint32(), Gid: a.rng.Uint32()}
		}
		if !a.throw(w, a.message(ioctl.OpPoolShow, 1000+tag, &ioctl.PoolShow{Pool: pool}), unix.UnixCredentials(cred)) {
			break
		}
	}
	for range 64 {
		if h, _, err := w.Receive(); err != nil || h.Flags&ioctl.FlagError == 0 {
			if err == nil {
				panic("a message in another process's name was answered")
			}
			return
		}
	}
}
