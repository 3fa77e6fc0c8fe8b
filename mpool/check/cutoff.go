package check

import (
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
)

// cutOff takes out of the state what commits made that were cut off: their
// records are there, in the last group of the log, and their data, which was to
// become durable with them, is not.
func (c *checker) cutOff(st *state) {
	if len(st.doubtful) == 0 {
		return
	}
	buf := bdev.AllocBuffer(blockSize)
	defer bdev.FreeBuffer(buf)
	for i := range st.doubtful {
		o := &st.doubtful[i]
		now, lives := st.table.Lookup(o.ID)
		if _, bad := c.misplaced(o); bad || !lives || now.Birth != o.Birth || c.arrived(o, buf) {
			continue
		}
		c.note(c.place(o, CommitCut, "the object's data is not there, and its commit was not known to be durable: it was cut off, or has rotted since; the next activation deletes it"))
		st.table.Delete(o.ID)
	}
}

// arrived says whether all blocks of a small mblock are what its record says.
func (c *checker) arrived(o *layout.Object, buf []byte) bool {
	d := c.bySlot[o.Extent.Drive]
	if d.dev == nil {
		return true
	}
	for i := range dataBlocks(o) {
		if d.dev.read(buf, o.Extent.Offset()+int64(i)*blockSize) != nil || mblock.BlockSum(o.Birth, i, buf) != o.Sums[i] {
			return false
		}
	}
	return true
}
