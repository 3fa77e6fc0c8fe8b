package misuse

import (
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
)

func (w *world) granted() {
	w.uncommitted()
	w.token = w.grant(w.m)
}

func (w *world) grant(o api.Object) api.Token {
	w.t.Helper()
	token, err := o.Grant(w.ctx, time.Minute)
	w.ok(err)
	return token
}

// Grants are of use between processes only: in process they are ENOTSUP, as the
// suite of behaviour says.
//
// proves S31 S35
func TestGrantStates(t *testing.T) {
	t.Parallel()
	x := table{
		served: true,
		states: map[string]func(w *world){
			"uncommitted": (*world).uncommitted,
			"shared":      func(w *world) { w.uncommitted(); w.shared(w.m) },
			"granted":     (*world).granted,
			"granted,ragged": func(w *world) {
				w.granted()
				_, err := w.m.Write(w.ctx, content(4, 100))
				w.ok(err)
			},
			"granted,poisoned": func(w *world) {
				w.granted()
				w.disks.fail(bdev.OpWrite)
				if _, err := w.m.Write(w.ctx, content(4, 4096)); err == nil {
					w.t.Fatal("a write that the drive failed succeeds")
				}
				w.disks.heal()
			},
			"granted,shared":  func(w *world) { w.granted(); w.shared(w.m) },
			"granted,again":   func(w *world) { w.granted(); w.grant(w.m) },
			"granted,revoked": func(w *world) { w.granted(); w.ok(w.m.Revoke(w.ctx)) },
			"accepted": func(w *world) {
				w.granted()
				_, err := w.Accept(w.ctx, w.token)
				w.ok(err)
			},
			"granted,committed":   func(w *world) { w.granted(); w.ok(w.m.Commit(w.ctx)) },
			"granted,deleting":    func(w *world) { w.granted(); w.ok(w.m.Commit(w.ctx)); w.leaving(w.m) },
			"granted,aborted":     func(w *world) { w.granted(); w.ok(w.m.Abort(w.ctx)) },
			"granted,put":         func(w *world) { w.granted(); w.ok(w.m.Put()) },
			"granted,readonly":    func(w *world) { w.granted(); w.readOnly() },
			"deactivated,granted": func(w *world) { w.granted(); w.deactivate() },
		},
		calls: map[string]func(w *world) error{
			"grant":  func(w *world) error { _, err := w.m.Grant(w.ctx, time.Minute); return err },
			"short":  func(w *world) error { _, err := w.m.Grant(w.ctx, api.MinGrant-1); return err },
			"long":   func(w *world) error { _, err := w.m.Grant(w.ctx, api.MaxGrant+1); return err },
			"revoke": func(w *world) error { return w.m.Revoke(w.ctx) },
			"accept": func(w *world) error { _, err := w.Accept(w.ctx, w.token); return err },
		},
		cells: `
			                     grant      short      long       revoke    accept
			uncommitted          ok         EINVAL/S35 EINVAL/S35 ok        ENOENT/S35
			shared               EBUSY/S35  EINVAL/S35 EINVAL/S35 ok        ENOENT/S35
			granted              ok         EINVAL/S35 EINVAL/S35 ok        ok
			granted,ragged       ok         EINVAL/S35 EINVAL/S35 ok        ok
			granted,poisoned     ok         EINVAL/S35 EINVAL/S35 ok        ok
			granted,shared       EBUSY/S35  EINVAL/S35 EINVAL/S35 ok        EBUSY/S35
			granted,again        ok         EINVAL/S35 EINVAL/S35 ok        ENOENT/S35
			granted,revoked      ok         EINVAL/S35 EINVAL/S35 ok        ENOENT/S35
			accepted             EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31 ENOENT/S35
			granted,committed    ESTATE/S35 EINVAL/S35 EINVAL/S35 ok        ENOENT/S35
			granted,deleting     EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31 ENOENT/S35
			granted,aborted      EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31 ENOENT/S35
			granted,put          EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31 ENOENT/S35
			granted,readonly     ok         EINVAL/S35 EINVAL/S35 ok        ok
			deactivated,granted  gone/S31   gone/S31   gone/S31   gone/S31  gone/S31
		`,
	}
	x.run(t)
}
