package misuse

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/server"
	"github.com/mpool-go/mpool/test/loopdev"
)

// visitorEnv makes this binary a client of the socket it names, that does what
// it is told on its standard input.
const visitorEnv = "MISUSE_TEST_VISITOR"

// Users and groups, which need not exist.
const (
	tenantUID  = 64001 // acts for the owner "tenant"
	memberUID  = 64002 // may open the pool, acts for nobody
	readerUID  = 64003 // may read the pool
	nobodyUID  = 64004 // may do nothing
	ownerUID   = 64005 // owns the pool
	poolGID    = 64100
	nobodysGID = 64200
)

// ids are the objects of the pool, by name.
type ids map[string]layout.ObjectID

// visitor is a client in a process of another user.
type visitor struct {
	ctx context.Context
	c   *client.Conn
	p   api.Pool // nil: it may not open it
	ids ids
}

func (v *visitor) find(name string) error {
	if v.ids[name].Kind() == layout.KindMlog {
		l, err := v.p.Mlog(v.ctx, v.ids[name])
		if err == nil {
			err = l.Put()
		}
		return err
	}
	m, err := v.p.Mblock(v.ctx, v.ids[name])
	if err == nil {
		err = m.Put()
	}
	return err
}

// on calls f with a handle on an mblock that the visitor may find.
func (v *visitor) on(name string, f func(m api.Mblock) error) error {
	m, err := v.p.Mblock(v.ctx, v.ids[name])
	if err != nil {
		return fmt.Errorf("not what was meant to fail: %s", err.Error())
	}
	defer m.Put()
	return f(m)
}

func (v *visitor) onLog(name string, f func(l api.Mlog) error) error {
	l, err := v.p.Mlog(v.ctx, v.ids[name])
	if err != nil {
		return fmt.Errorf("not what was meant to fail: %s", err.Error())
	}
	defer l.Put()
	return f(l)
}

func (v *visitor) alloc(o api.AllocOptions) error {
	o.Capacity = 100
	m, err := v.p.AllocMblock(v.ctx, o)
	if err == nil {
		err = m.Abort(v.ctx)
	}
	return err
}

func (v *visitor) root(name string) error {
	return v.p.SetRoots(v.ctx, []api.Root{{Name: "x", ID: v.ids[name]}})
}

// visits are all calls that permission decides.
var visits = map[string]func(v *visitor) error{
	"create": func(v *visitor) error {
		_, err := v.c.CreatePool(v.ctx, "x", []string{"two"}, api.CreateOptions{})
		return err
	},
	"activate": func(v *visitor) error {
		_, err := v.c.ActivatePool(v.ctx, "x", []string{"two"}, api.ActivateOptions{})
		return err
	},
	"deactivate": func(v *visitor) error { return v.c.DeactivatePool(v.ctx, "p") },
	"destroy":    func(v *visitor) error { return v.c.DestroyPool(v.ctx, "p") },
	"rename":     func(v *visitor) error { return v.c.RenamePool(v.ctx, "p", "x") },
	"set":        func(v *visitor) error { return v.c.SetPool(v.ctx, "p", api.PoolSettings{Mode: new(uint32(0o666))}) },
	"open":       func(v *visitor) error { _, err := v.c.OpenPool(v.ctx, "p"); return err },
	"stat":       func(v *visitor) error { _, err := v.c.Stat(v.ctx, "p"); return err },

	"alloc":          func(v *visitor) error { return v.alloc(api.AllocOptions{}) },
	"alloc for root": func(v *visitor) error { return v.alloc(api.AllocOptions{Owner: 2}) },
	"use spare":      func(v *visitor) error { return v.alloc(api.AllocOptions{UseSpare: true}) },
	"alloc log":      func(v *visitor) error { _, err := v.p.AllocMlog(v.ctx, api.AllocOptions{Capacity: 100}); return err },
	"create mdc":     func(v *visitor) error { _, err := v.p.CreateMDC(v.ctx, api.AllocOptions{Capacity: 100}); return err },
	"realloc": func(v *visitor) error {
		_, err := v.p.ReallocMblock(v.ctx, noSuchBlock, api.AllocOptions{})
		return err
	},
	"add owner":       func(v *visitor) error { _, err := v.p.AddOwner(v.ctx, "mine", 0); return err },
	"root on pool's":  func(v *visitor) error { return v.root("pool's") },
	"root on other's": func(v *visitor) error { return v.root("other's") },
	"unset root":      func(v *visitor) error { return v.p.SetRoots(v.ctx, []api.Root{{Name: "data"}}) },
	"find pool's":     func(v *visitor) error { return v.find("pool's") },
	"find tenant's":   func(v *visitor) error { return v.find("tenant's") },
	"find other's":    func(v *visitor) error { return v.find("other's") },
	"find other's log": func(v *visitor) error {
		return v.find("other's log")
	},
	"find uncommitted": func(v *visitor) error { return v.find("uncommitted") },
	"open other's mdc": func(v *visitor) error { _, err := v.p.OpenMDC(v.ctx, v.ids["other's mdc"]); return err },
	"delete other's mdc": func(v *visitor) error {
		return v.p.DeleteMDC(v.ctx, v.ids["other's mdc"])
	},
	"delete pool's": func(v *visitor) error {
		return v.on("pool's", func(m api.Mblock) error { return m.Delete(v.ctx) })
	},
	"write pool's": func(v *visitor) error {
		return v.on("pool's", func(m api.Mblock) error { _, err := m.Write(v.ctx, nil); return err })
	},
	"commit many": func(v *visitor) error {
		return v.on("pool's", func(m api.Mblock) error { return v.p.CommitMany(v.ctx, []api.Object{m}, nil) })
	},
	"append to pool's log": func(v *visitor) error {
		return v.onLog("pool's log", func(l api.Mlog) error { _, err := l.OpenAppend(v.ctx); return err })
	},
	"erase pool's log": func(v *visitor) error {
		return v.onLog("pool's log", func(l api.Mlog) error { return l.Erase(v.ctx, 0) })
	},
	"open pool's mdc":   func(v *visitor) error { _, err := v.p.OpenMDC(v.ctx, v.ids["pool's mdc"]); return err },
	"delete pool's mdc": func(v *visitor) error { return v.p.DeleteMDC(v.ctx, v.ids["pool's mdc"]) },

	// What a list shows of others is an error here.
	"see others": func(v *visitor) error {
		return v.none(func(o api.ObjectInfo) bool { return o.ID == v.ids["other's"] || o.ID == v.ids["other's log"] })
	},
	"see uncommitted": func(v *visitor) error {
		return v.none(func(o api.ObjectInfo) bool { return o.ID == v.ids["uncommitted"] })
	},
	"see clients": func(v *visitor) error {
		clients, err := v.c.Clients(v.ctx, 0)
		for _, c := range clients {
			if c.UID != uint32(os.Getuid()) {
				return api.Errorf(api.EEXIST, "client list", "shows user %d", c.UID)
			}
		}
		return err
	},
	"see handles": func(v *visitor) error {
		for h, err := range v.c.Handles(v.ctx, "", 0) {
			if err != nil {
				return err
			}
			if h.PID != int32(os.Getpid()) {
				return api.Errorf(api.EEXIST, "handle list", "shows process %d", h.PID)
			}
		}
		return nil
	},
}

// none fails if the list of objects shows one of these.
func (v *visitor) none(bad func(o api.ObjectInfo) bool) error {
	for o, err := range v.p.Objects(v.ctx, api.Filter{}) {
		if err != nil {
			return err
		}
		if bad(o) {
			return api.Errorf(api.EEXIST, "object list", "shows %v", o.ID)
		}
	}
	return nil
}

// visitorMain is the other user's process.
func visitorMain() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	v := &visitor{ctx: ctx}
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	err := json.Unmarshal(in.Bytes(), &v.ids)
	if err == nil {
		v.c, err = client.Dial(ctx, client.Options{Socket: os.Getenv(visitorEnv), Reconnect: -1})
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	if p, err := v.c.OpenPool(ctx, "p"); err == nil {
		v.p = p
	}
	fmt.Println("ready")
	for in.Scan() {
		err := visits[in.Text()](v)
		fmt.Printf("%v %v\n", api.CodeOf(err), err)
	}
}

// guest is a visitor as the test has it.
type guest struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

// guest starts a visitor.
func (s *served) guest(t *testing.T, bin string, uid, gid uint32, known ids) *guest {
	t.Helper()
	cmd := exec.Command(bin)
	cmd.Env = append(os.Environ(), visitorEnv+"="+s.socket)
	cmd.Stderr = os.Stderr
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uid, Gid: gid}, Pdeathsig: syscall.SIGKILL,
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	g := &guest{t: t, in: in, out: bufio.NewReader(out)}
	b, err := json.Marshal(known)
	if err != nil {
		t.Fatal(err)
	}
	if answer := g.ask(string(b)); answer != "ready" {
		t.Fatalf("user %d: %s", uid, answer)
	}
	return g
}

func (g *guest) ask(line string) string {
	g.t.Helper()
	if _, err := fmt.Fprintln(g.in, line); err != nil {
		g.t.Fatal(err)
	}
	answer, err := g.out.ReadString('\n')
	if err != nil {
		g.t.Fatal(err)
	}
	return strings.TrimSuffix(answer, "\n")
}

// estate makes the pool's objects, by their owners.
func (w *world) estate() ids {
	w.t.Helper()
	other, err := w.AddOwner(w.ctx, "other", 0)
	w.ok(err)
	child, err := w.AddOwner(w.ctx, "child", 1)
	w.ok(err)
	known := make(ids)
	for name, owner := range map[string]uint32{"pool's": 0, "tenant's": child, "other's": other} {
		m := w.mblock(api.AllocOptions{Capacity: 100, Owner: owner}, []byte(name))
		w.ok(m.Commit(w.ctx))
		w.ok(m.Put())
		l, err := w.AllocMlog(w.ctx, api.AllocOptions{Capacity: 100, Owner: owner})
		w.ok(err)
		w.ok(l.Commit(w.ctx))
		w.ok(l.Put())
		mdc, err := w.CreateMDC(w.ctx, api.AllocOptions{Capacity: 100, Owner: owner})
		w.ok(err)
		known[name], known[name+" log"], known[name+" mdc"] = m.ID(), l.ID(), mdc
	}
	u := w.mblock(api.AllocOptions{Capacity: 4096}, nil)
	w.later(func() { _ = u.Put() })
	known["uncommitted"] = u.ID()
	return known
}

// proves S44 S9 S10 S31
func TestPermissions(t *testing.T) {
	t.Parallel()
	loopdev.RequireRoot(t)
	admin := map[string]string{
		"create": "EPERM", "activate": "EPERM", "deactivate": "EPERM", "destroy": "EPERM", "rename": "EPERM", "set": "EPERM",
		"see clients": "ok", "see handles": "ok",
	}
	reads := map[string]string{
		"open": "ok", "stat": "ok", "find uncommitted": "ENOENT", "see others": "ok", "see uncommitted": "ok",
		"find other's": "ENOENT", "find other's log": "ENOENT",
	}
	users := []struct {
		name     string
		uid, gid uint32
		want     []map[string]string // later ones win
	}{
		{"nobody", nobodyUID, nobodysGID, []map[string]string{admin, {"open": "EPERM", "stat": "EPERM"}}},
		{"reader", readerUID, nobodysGID, []map[string]string{admin, reads, {
			"find pool's": "ok", "find tenant's": "ENOENT",
			"alloc": "EPERM", "alloc for root": "EPERM", "use spare": "EPERM", "alloc log": "EPERM", "create mdc": "EPERM",
			"realloc": "EPERM", "add owner": "EPERM", "root on pool's": "EPERM", "root on other's": "EPERM", "unset root": "EPERM",
			"delete pool's": "EPERM", "write pool's": "EPERM", "commit many": "EPERM",
			"append to pool's log": "EPERM", "erase pool's log": "EPERM",
			"open pool's mdc": "EPERM", "delete pool's mdc": "EPERM", "open other's mdc": "EPERM", "delete other's mdc": "EPERM",
		}}},
		{"member", memberUID, poolGID, []map[string]string{admin, reads, {
			"find pool's": "ok", "find tenant's": "ENOENT", "alloc": "ok", "alloc for root": "EPERM",
			"use spare": "EPERM", "realloc": "EPERM", "root on other's": "ENOENT",
			"open other's mdc": "ENOENT", "delete other's mdc": "ENOENT",
		}}},
		{"tenant", tenantUID, poolGID, []map[string]string{admin, reads, {
			"find pool's": "ENOENT", "find tenant's": "ok", "alloc": "ok", "alloc for root": "EPERM",
			"use spare": "EPERM", "realloc": "EPERM", "root on other's": "ENOENT", "root on pool's": "ENOENT",
			"open other's mdc": "ENOENT", "delete other's mdc": "ENOENT",
			"open pool's mdc": "ENOENT", "delete pool's mdc": "ENOENT",
		}}},
		{"owner", ownerUID, nobodysGID, []map[string]string{admin, reads, {
			"find pool's": "ok", "find tenant's": "ok", "find other's": "ok", "find other's log": "ok", "alloc": "ok",
			"alloc for root": "ok", "use spare": "EPERM", "see others": "EEXIST",
		}}},
	}
	d := newDisks()
	s := serve(t, d, server.Options{Owners: []server.OwnerRule{{Pool: "p", UID: tenantUID, Owner: "tenant"}}})
	defer s.stop(t)
	bin := visitors(t)
	c := s.dial(t)
	defer c.Close()
	w := &world{t: t, ctx: t.Context(), disks: d}
	_, err := c.CreatePool(w.ctx, "p", []string{"one"}, api.CreateOptions{UID: ownerUID, GID: poolGID, Mode: 0o664})
	w.ok(err)
	w.Pool, err = c.OpenPool(w.ctx, "p")
	w.ok(err)
	w.handles = func() uint32 {
		stat, err := c.Stat(w.ctx, "")
		w.ok(err)
		return stat.Handles
	}
	w.furnish()
	known := w.estate()
	for _, u := range users {
		t.Run(u.name, func(t *testing.T) {
			if u.name == "nobody" {
				w.ok(c.SetPool(w.ctx, "p", api.PoolSettings{Mode: new(uint32(0o660))}))
				defer func() { w.ok(c.SetPool(w.ctx, "p", api.PoolSettings{Mode: new(uint32(0o664))})) }()
			}
			g := s.guest(t, bin, u.uid, u.gid, known)
			w.t = t
			before := w.snapshot()
			rows := make(map[string]string)
			for _, m := range u.want {
				maps.Copy(rows, m)
			}
			for name, want := range rows {
				code, text, _ := strings.Cut(g.ask(name), " ")
				if code == "E0" {
					code = "ok"
				}
				if code != want {
					t.Errorf("%s: %s; want %s (S44)", name, text, want)
				}
				if name == "open" && want == "ok" {
					before.Handles++ // it keeps it
				}
				if !w.unchanged(before, name) {
					before = w.snapshot()
				}
			}
		})
	}
}

// visitors returns a copy of this binary that other users may run.
func visitors(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "misuse-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	bin := filepath.Join(dir, "visitor")
	if err := os.WriteFile(bin, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return bin
}
