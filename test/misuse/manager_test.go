package misuse

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/server"
)

// office is a daemon with a pool on the drive "one" that a client has open, a
// pool that is not active on "two", and nothing on "three".
type office struct {
	t     *testing.T
	ctx   context.Context
	disks *disks
	s     *served
	api.Manager
	uuid string // of the active pool
}

// offices are the managers: the daemon's own, and a client's.
func offices(t *testing.T, f func(o *office)) {
	t.Helper()
	for _, remote := range []bool{false, true} {
		t.Run(fmt.Sprintf("remote=%v", remote), func(t *testing.T) {
			o := &office{t: t, ctx: t.Context(), disks: newDisks()}
			o.s = serve(t, o.disks, server.Options{})
			defer o.s.stop(t)
			c := o.s.dial(t)
			defer c.Close()
			o.Manager = o.s.srv
			if remote {
				o.Manager = c
			}
			made, err := c.CreatePool(o.ctx, "p", []string{"one"}, api.CreateOptions{})
			o.ok(err)
			o.uuid = made.UUID
			_, err = c.CreatePool(o.ctx, "idle", []string{"two"}, api.CreateOptions{NoActivate: true})
			o.ok(err)
			_, err = c.OpenPool(o.ctx, "p")
			o.ok(err)
			f(o)
		})
	}
}

func (o *office) ok(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

// look is everything that a manager may change.
func (o *office) look() []string {
	o.t.Helper()
	pools, err := o.Pools(o.ctx)
	o.ok(err)
	var all []string
	for _, p := range pools {
		all = append(all, fmt.Sprintf("%+v", p))
	}
	for _, d := range o.disks.rack[1:] { // the first is in use
		h := sha256.New() // of the superblocks
		for _, off := range []int64{0, 1 << 20, d.Size() - 1<<20} {
			_, err := io.Copy(h, io.NewSectionReader(d, off, 64<<10))
			o.ok(err)
		}
		all = append(all, fmt.Sprintf("%s %x", d.Options().Name, h.Sum(nil)))
	}
	return all
}

func create(name string, devices []string, c api.CreateOptions) func(o *office) error {
	return func(o *office) error { _, err := o.CreatePool(o.ctx, name, devices, c); return err }
}

func activate(name string, devices ...string) func(o *office) error {
	return func(o *office) error {
		_, err := o.ActivatePool(o.ctx, name, devices, api.ActivateOptions{})
		return err
	}
}

func set(name string, s api.PoolSettings) func(o *office) error {
	return func(o *office) error { return o.SetPool(o.ctx, name, s) }
}

func rename(from, to string) func(o *office) error {
	return func(o *office) error { return o.RenamePool(o.ctx, from, to) }
}

var three = []string{"three"}

// proves S1 S3 S4 S5 S46
func TestManager(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name string
		call func(o *office) error
		want api.Code
		by   string
	}{
		{"create: taken name", create("p", three, api.CreateOptions{}), api.EEXIST, "S5"},
		{"create: empty name", create("", three, api.CreateOptions{}), api.EINVAL, "S1"},
		{"create: a flag's name", create("-p", three, api.CreateOptions{}), api.EINVAL, "S1"},
		{"create: a hidden name", create(".p", three, api.CreateOptions{}), api.EINVAL, "S1"},
		{"create: a path", create("a/b", three, api.CreateOptions{}), api.EINVAL, "S1"},
		{"create: 64 bytes", create(strings.Repeat("x", 64), three, api.CreateOptions{}), api.EINVAL, "S1"},
		{"create: 300 bytes", create(strings.Repeat("x", 300), three, api.CreateOptions{}), api.EINVAL, "S1"},
		{"create: no drive", create("x", nil, api.CreateOptions{}), api.EINVAL, "S1"},
		{"create: staging only", create("x", nil, api.CreateOptions{Staging: three}), api.EINVAL, "S1"},
		{"create: absent drive", create("x", []string{"four"}, api.CreateOptions{}), api.ENOENT, "S1"},
		{"create: absent staging", create("x", three, api.CreateOptions{Staging: []string{"four"}}), api.ENOENT, "S1"},
		{"create: drive in use", create("x", []string{"one"}, api.CreateOptions{}), api.EBUSY, "S1"},
		{"create: drive in use, forced", create("x", []string{"one"}, api.CreateOptions{Force: true}), api.EBUSY, "S1"},
		{"create: twice the same", create("x", []string{"three", "three"}, api.CreateOptions{}), api.EINVAL, "S1"},
		{"create: in both classes", create("x", three, api.CreateOptions{Staging: three}), api.EINVAL, "S1"},
		{"create: a pool's drive", create("x", []string{"two"}, api.CreateOptions{}), api.ESTATE, "S1"},
		{"create: one blank, one not", create("x", []string{"three", "two"}, api.CreateOptions{}), api.ESTATE, "S1"},
		{"create: zones too small", create("x", three, api.CreateOptions{ZoneSize: 32 << 10}), api.EINVAL, "S1"},
		{"create: zones too large", create("x", three, api.CreateOptions{ZoneSize: 128 << 20}), api.EINVAL, "S1"},
		{"create: no power of two", create("x", three, api.CreateOptions{ZoneSize: 100_000}), api.EINVAL, "S1"},
		{"create: negative zones", create("x", three, api.CreateOptions{ZoneSize: -1}), api.EINVAL, "S1"},
		{"create: odd mode", create("x", three, api.CreateOptions{Mode: 0o10660}), api.EINVAL, "S44"},
		{"create: long label", create("x", three, api.CreateOptions{Label: strings.Repeat("x", 64)}), api.EINVAL, "S1"},
		{"create: label of no text", create("x", three, api.CreateOptions{Label: "\x00"}), api.EINVAL, "S1"},

		{"activate: active", activate("p", "one"), api.EBUSY, "S4"},
		{"activate: active, by UUID", func(o *office) error { return activate(o.uuid, "one")(o) }, api.EBUSY, "S4"},
		{"activate: not there", activate("x", "three"), api.ENOENT, "S3"},
		{"activate: on another's drive", activate("x", "two"), api.ENOENT, "S3"},
		{"activate: absent drive", activate("idle", "four"), api.ENOENT, "S3"},
		{"activate: empty name", activate("", "two"), api.ENOENT, "S3"},

		{"deactivate: absent", func(o *office) error { return o.DeactivatePool(o.ctx, "x") }, api.ENOENT, "S3"},
		{"deactivate: not active", func(o *office) error { return o.DeactivatePool(o.ctx, "idle") }, api.ENOENT, "S3"},
		{"deactivate: open", func(o *office) error { return o.DeactivatePool(o.ctx, "p") }, api.EBUSY, "S3"},
		{"destroy: absent", func(o *office) error { return o.DestroyPool(o.ctx, "x") }, api.ENOENT, "S5"},
		{"destroy: not active", func(o *office) error { return o.DestroyPool(o.ctx, "idle") }, api.ENOENT, "S5"},
		{"destroy: open", func(o *office) error { return o.DestroyPool(o.ctx, "p") }, api.EBUSY, "S5"},
		{"rename: absent", rename("x", "y"), api.ENOENT, "S5"},
		{"rename: not active", rename("idle", "y"), api.ENOENT, "S5"},
		{"rename: empty", rename("p", ""), api.EINVAL, "S5"},
		{"rename: a path", rename("p", "../p"), api.EINVAL, "S5"},
		{"rename: 64 bytes", rename("p", strings.Repeat("x", 64)), api.EINVAL, "S5"},
		{"set: absent", set("x", api.PoolSettings{}), api.ENOENT, "S44"},
		{"set: odd mode", set("p", api.PoolSettings{Mode: new(uint32(0o1777))}), api.EINVAL, "S44"},
		{"set: long label", set("p", api.PoolSettings{Label: new(strings.Repeat("x", 64))}), api.EINVAL, "S44"},
		{"set: label of no text", set("p", api.PoolSettings{Label: new("\xff")}), api.EINVAL, "S44"},
		{"set: spare of 51 %", set("p", api.PoolSettings{SparePercent: new(uint8(51))}), api.EINVAL, "S7"},
		{"set: one good, one not", set("p", api.PoolSettings{UID: new(uint32(7)), SparePercent: new(uint8(51))}), api.EINVAL, "S44"},
	}
	offices(t, func(o *office) {
		before := o.look()
		for _, c := range rows {
			err := c.call(o)
			if o.Manager == o.s.srv && errors.Is(err, c.want) {
				err = &api.Error{Code: c.want, Op: "-", Err: err} // the session adds what was tried
			}
			if !isOne(err, []api.Code{c.want}) {
				o.t.Errorf("%s: %v; want %v (%s)", c.name, err, c.want, c.by)
			}
			if diff := cmp.Diff(before, o.look()); diff != "" {
				o.t.Errorf("%s has changed something:\n%s", c.name, diff)
				before = o.look()
			}
		}
		// The other pool is still there, and takes no damage from a name in use.
		_, err := o.ActivatePool(o.ctx, "idle", []string{"two"}, api.ActivateOptions{})
		o.ok(err)
		if err := o.RenamePool(o.ctx, "idle", "p"); !errors.Is(err, api.EEXIST) {
			o.t.Errorf("rename to a taken name: %v", err)
		}
		o.ok(o.DestroyPool(o.ctx, "idle"))
	})
}
