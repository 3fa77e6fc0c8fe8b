package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
)

// childUID says which user an actor is.
const childUID = "MPOOL_SERVER_TEST_UID"

// actor is a user who does what it is told, a line at a time, and says what
// came of it. What it finds it keeps.
func actor() {
	uid := try(strconv.Atoi(os.Getenv(childUID)))
	check(syscall.Setgroups(nil))
	check(syscall.Setgid(uid))
	check(syscall.Setuid(uid))
	c, p := childDial()
	a := &acting{c: c, p: p, kept: map[string]api.Object{}}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		verb, arg, _ := strings.Cut(in.Text(), " ")
		said, err := a.act(verb, arg)
		if err != nil {
			said = api.CodeOf(err).Error()
			if e, ok := errors.AsType[*api.Error](err); ok {
				for _, h := range e.Holders {
					said += fmt.Sprintf(" %v:%d", h.PID != 0, h.References)
				}
			}
		}
		fmt.Println(said)
	}
}

type acting struct {
	c    *client.Conn
	p    api.Pool
	kept map[string]api.Object
}

func (a *acting) act(verb, arg string) (said string, err error) {
	ctx := context.Background()
	n, _ := strconv.ParseUint(arg, 16, 64)
	id := layout.ObjectID(n)
	switch verb {
	case "mblock", "mlog":
		var o api.Object
		if verb == "mblock" {
			o, err = a.p.Mblock(ctx, id)
		} else {
			o, err = a.p.Mlog(ctx, id)
		}
		if err == nil {
			a.kept[arg] = o
		}
	case "put":
		err = a.kept[arg].Put()
	case "delete":
		err = a.kept[arg].Delete(ctx)
	case "accept":
		var token api.Token
		if token, err = api.ParseToken(arg); err == nil {
			var o api.Object
			if o, err = a.p.Accept(ctx, token); err == nil {
				err = o.Abort(ctx)
			}
		}
	case "read":
		_, err = a.kept[arg].(api.Mblock).ReadAtContext(ctx, make([]byte, 1), 0)
	case "mdc":
		var m api.MDC
		if m, err = a.p.OpenMDC(ctx, id); err == nil {
			err = m.Close(ctx)
		}
	case "undo":
		err = a.p.DeleteMDC(ctx, id)
	case "root":
		err = a.p.SetRoots(ctx, []api.Root{{Name: "r", ID: id}})
	case "commit":
		var b api.Mblock
		if b, err = a.p.AllocMblock(ctx, api.AllocOptions{Capacity: 1}); err == nil {
			if err = a.p.CommitMany(ctx, []api.Object{b}, []api.Root{{Name: "r", ID: id}}); err == nil {
				err = b.Delete(ctx)
			} else {
				check(b.Abort(ctx))
			}
		}
	case "alloc", "log":
		var o api.Object
		options := api.AllocOptions{Capacity: 1, Owner: uint32(n)}
		if verb == "alloc" {
			o, err = a.p.AllocMblock(ctx, options)
		} else {
			o, err = a.p.AllocMlog(ctx, options)
		}
		if err == nil {
			said = fmt.Sprint("as ", try(o.Info(ctx)).Owner)
			check(o.Abort(ctx))
		}
	case "container":
		var made layout.ObjectID
		if made, err = a.p.CreateMDC(ctx, api.AllocOptions{Capacity: 1 << 20, Owner: uint32(n)}); err == nil {
			check(a.p.DeleteMDC(ctx, made))
		}
	case "list":
		var ids []string
		for i, err := range a.p.Objects(ctx, api.Filter{}) {
			check(err)
			ids = append(ids, fmt.Sprint(i.Owner))
		}
		slices.Sort(ids)
		said = strings.Join(slices.Compact(ids), "")
	case "look":
		said = a.look()
	case "owner":
		_, err = a.p.AddOwner(ctx, arg, 0)
	default:
		panic("an actor is to " + verb)
	}
	if said == "" {
		said = "ok"
	}
	return said, err
}

// look says whose sessions, handles and events it sees.
func (a *acting) look() string {
	ctx := context.Background()
	uids := map[uint64]uint32{}
	var clients, handles, events []string
	for _, c := range try(a.c.Clients(ctx, 0)) {
		uids[c.Session] = c.UID
		clients = append(clients, fmt.Sprint(" ", c.UID))
	}
	for h, err := range a.c.Handles(ctx, "", 0) {
		check(err)
		handles = append(handles, fmt.Sprint(" ", uids[h.Session]))
	}
	for e, err := range a.c.Events(ctx, client.EventOptions{}) {
		check(err)
		events = append(events, fmt.Sprint(" ", e.UID))
	}
	slices.Sort(clients)
	slices.Sort(handles)
	return "clients" + strings.Join(clients, "") + "; handles" + strings.Join(handles, "") + "; events" + strings.Join(events, "")
}

func (r *rig) actor(uid int) *offspring {
	r.t.Helper()
	r.t.Setenv(childUID, strconv.Itoa(uid))
	k := r.child("actor")
	k.expect("ready")
	return k
}

// says tells an actor what to do and returns what it says.
func (c *offspring) says(what string, args ...any) string {
	c.t.Helper()
	for _, a := range args {
		what += fmt.Sprintf(" %v", a)
	}
	if _, err := fmt.Fprintln(c.in, what); err != nil {
		c.t.Fatal(err)
	}
	return c.line()
}
