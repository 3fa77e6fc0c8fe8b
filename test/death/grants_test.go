package death

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
)

// The descriptors of a victim beside the standard ones.
const (
	reportFD = 3 + iota
	grantsFD // to read what victims have granted each other
	grantFD  // to write it
)

// grant is what victims tell each other through a pipe:
//
//	 0     16    24
//	+-----+-----+
//	|token|tag  |
//	+-----+-----+
type grant [24]byte

// grantPipe is a pipe for grants. Nobody waits for it.
func grantPipe() ([2]*os.File, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return [2]*os.File{}, err
	}
	return [2]*os.File{os.NewFile(uintptr(fds[0]), "grants"), os.NewFile(uintptr(fds[1]), "grant")}, nil
}

// grants hands mblocks over to others and takes over what others hand over.
func (v *victim) grants(ctx context.Context, rng *rand.Rand) error {
	if rng.IntN(2) == 0 {
		return v.accept(ctx, rng)
	}
	t := v.next()
	b, err := v.write(ctx, rng, t)
	if err != nil {
		return err
	}
	token, err := b.Grant(ctx, time.Minute)
	if err != nil {
		return err
	}
	var g grant
	copy(g[:], token[:])
	binary.LittleEndian.PutUint64(g[api.TokenSize:], uint64(t))
	_, _ = unix.Write(grantFD, g[:]) // it may be full
	switch rng.IntN(8) {
	case 0:
		err = v.commit(ctx, t, b)
	case 1:
		err = b.Abort(ctx)
	case 2:
		err = b.Revoke(ctx)
	}
	if errors.Is(err, api.EBADF) {
		return nil // it is another's by now
	}
	return err
}

// accept takes over what somebody has granted, if that lives still and it is not
// taken.
func (v *victim) accept(ctx context.Context, rng *rand.Rand) error {
	var g grant
	if n, _ := unix.Read(grantsFD, g[:]); n != len(g) { // there is none
		return nil
	}
	t := tag(binary.LittleEndian.Uint64(g[api.TokenSize:]))
	o, err := v.p.Accept(ctx, api.Token(g[:api.TokenSize]))
	if errors.Is(err, api.ENOENT) || errors.Is(err, api.EBUSY) {
		return nil
	}
	if err != nil {
		return err
	}
	b, ok := o.(api.Mblock)
	if !ok {
		return errWrong
	}
	if err := t.matches(ctx, b); err != nil {
		return err
	}
	if rng.IntN(4) == 0 {
		return nil // it is the victim's, uncommitted
	}
	if err := v.commit(ctx, t, b); err != nil || rng.IntN(2) == 0 {
		return err
	}
	return v.delete(ctx, t, b)
}

// pass gives what victims told of others' objects to the ledgers of those.
func pass(ledgers map[uint32]*ledger) error {
	for serial, l := range ledgers {
		for t, n := range l.begun {
			if t.serial() == serial {
				continue
			}
			giver := ledgers[t.serial()]
			if giver == nil {
				return errors.New("an object was accepted of one who was dead")
			}
			if giver.done[t] {
				return errors.New("an object was committed by its giver and by who took it over")
			}
			giver.begun[t] = n
			if l.done[t] {
				giver.done[t] = true
			}
			giver.leaving[t], giver.left[t] = l.leaving[t], l.left[t]
			for _, m := range []map[tag]bool{l.done, l.leaving, l.left} {
				delete(m, t)
			}
			delete(l.begun, t)
		}
	}
	return nil
}
