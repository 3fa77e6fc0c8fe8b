package hostile

import (
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// grants grants without end, what it has and what it has not, and accepts its own
// tokens again and again.
func grants(a *attacker) {
	w, pool := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	alloc := &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1}}
	handles := []ioctl.Handle{pool, a.give(w, ioctl.OpMblockAlloc, alloc), a.give(w, ioctl.OpMlogAlloc, alloc)}
	tokens := []api.Token{{}}
	for range 500 {
		if !a.on() {
			return
		}
		_ = w.Conn.SetDeadline(time.Now().Add(soon)) // then the next call fails
		h := handles[a.rng.IntN(len(handles))]
		switch a.rng.IntN(8) {
		case 0:
			if h := a.give(w, ioctl.OpMblockAlloc, alloc); h != 0 {
				handles = append(handles, h)
			}
		case 1:
			if h := a.give(w, ioctl.OpAccept, &ioctl.Accept{Pool: pool, Token: tokens[a.rng.IntN(len(tokens))]}); h != 0 {
				handles = append(handles, h)
			}
		case 2:
			_, _ = a.ask(w, []ioctl.Op{ioctl.OpRevoke, ioctl.OpObjectAbort}[a.rng.IntN(2)], &ioctl.Target{Handle: h}) // it may fail
		case 3:
			_, _ = a.ask(w, ioctl.OpGrant, &ioctl.Grant{Object: h, TTL: time.Duration(a.number())}) // most often EINVAL
		default:
			reply, err := a.ask(w, ioctl.OpGrant, &ioctl.Grant{Object: h, TTL: api.MaxGrant})
			if err == nil {
				tokens = append(tokens, reply.(*ioctl.Granted).Token)
			}
		}
	}
}

// guesses asks for objects by tokens that it makes up: any, and those that differ
// from one of its own in one bit. One that is good ends the test.
func guesses(a *attacker) {
	w, pool := a.open()
	if w == nil {
		return
	}
	defer w.Conn.Close()
	b := a.give(w, ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1}})
	reply, err := a.ask(w, ioctl.OpGrant, &ioctl.Grant{Object: b, TTL: api.MaxGrant})
	if err != nil {
		return
	}
	known := reply.(*ioctl.Granted).Token
	for a.on() {
		for tag := range uint64(64) {
			token := known
			if bit := a.rng.IntN(256); bit < 128 {
				token[bit/8] ^= 1 << (bit % 8)
			} else {
				copy(token[:], a.bytes(api.TokenSize))
			}
			if !a.throw(w, a.message(ioctl.OpAccept, tag+100, &ioctl.Accept{Pool: pool, Token: token}), nil) {
				return
			}
		}
		_ = w.Conn.SetDeadline(time.Now().Add(10 * soon)) // then the next call fails
		for range 64 {
			n, err := w.Conn.Read(a.buf)
			if err != nil {
				return
			}
			h, err := ioctl.ParseHeader(a.buf[:n])
			check(err)
			if h.Flags&ioctl.FlagError == 0 {
				panic("a token that was made up is good")
			}
		}
	}
}
