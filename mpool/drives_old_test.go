package mpool

import (
	"strings"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool/omf"
)

// proves S3, S22: an old copy of a drive, whose logs would end too early, is not
// taken for the drive, unless somebody says so.
func TestOldCopyOfADrive(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 0)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		id := r.putOn(p, 1, fill(5000))
		r.ok(p.Close())
		old := r.disks[1].Clone()
		for range 2 {
			r.ok(r.activate().Close())
		}
		n := r.again(1, devsim.Rack{r.disks[0].Clone(), old})
		n.run(func() {
			_, err := n.activateOn(n.paths(), api.ActivateOptions{})
			n.want(api.ESTATE, err)
			if !strings.Contains(err.Error(), "missed 2 activations") || !strings.Contains(err.Error(), "--force") {
				t.Error(err)
			}
			p, err := n.activateOn(n.paths(), api.ActivateOptions{Force: true})
			n.ok(err)
			_, err = read(p, id, 5000)
			n.ok(err)
			n.ok(p.Close())
			n.ok(n.activate().Close()) // it has caught up
		})
	})
}

// proves S3: activations that are cut off one after the other do not make a drive
// look old.
func TestActivationsCutOff(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 0)
	r.run(func() {
		r.create(api.CreateOptions{})
		r.ok(r.activate().Close())
		for i := range 4 {
			lag := r.disks[1].Clone()
			r.ok(r.activate().Close())
			// The second drive stays behind, as if this one had been cut off before
			// its turn; the next one is cut off at the metadata drive.
			r.disks[0].Inject(devsim.Fault{Code: bdev.OpWrite, Err: syscall.EIO, To: 4096})
			n := r.again(uint64(i), devsim.Rack{r.disks[0], lag})
			n.run(func() {
				if _, err := n.activateOn(n.paths(), api.ActivateOptions{}); err == nil {
					t.Error("activated on a metadata drive that fails")
				}
			})
			r.disks[0].Heal()
			b := make([]byte, omf.SuperblockSize)
			_, err := lag.ReadAt(b, 0)
			r.ok(err)
			sb, err := omf.Decode(b)
			r.ok(err)
			_, err = r.disks[0].ReadAt(b, omf.SecondCopyOffset)
			r.ok(err)
			meta, err := omf.Decode(b)
			r.ok(err)
			if sb.Epoch != meta.Epoch || sb.Generation != meta.Generation || sb.Slot != 1 {
				t.Errorf("the drive that lagged is at epoch %d, generation %d, the metadata drive at %d, %d",
					sb.Epoch, sb.Generation, meta.Epoch, meta.Generation)
			}
		}
	})
}

// proves S43: bytes of an object that lie where a drive's last superblock copy was
// before it grew, and look like one, are not taken for one.
func TestForgedLastCopy(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 0)
	r.run(func() {
		r.create(api.CreateOptions{})
		r.ok(r.activate().Close())
		b := make([]byte, omf.SuperblockSize)
		_, err := r.disks[1].ReadAt(b, 0)
		r.ok(err)
		sb, err := omf.Decode(b)
		r.ok(err)
		sb.Copy, sb.Generation, sb.Epoch = 2, sb.Generation+100, sb.Epoch+100
		r.ok(sb.Encode(b))
		_, err = r.disks[1].WriteAt(b, 16*mib-omf.SuperblockSize)
		r.ok(err)
		r.ok(r.activate().Close())
	})
}
