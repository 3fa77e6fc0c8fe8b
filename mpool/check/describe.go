package check

import (
	"fmt"

	"github.com/mpool-go/mpool/layout"
)

// describe shows an object on one line.
func describe(o *layout.Object) string {
	s := fmt.Sprintf("%v %v birth %d drive %d blocks %d+%d capacity %d", o.ID.Kind(), o.ID, o.Birth, o.Extent.Drive,
		o.Extent.Start, o.Extent.Blocks, o.Capacity)
	if o.ID.Kind() == layout.KindMblock {
		s += fmt.Sprintf(" written %d", o.Written)
	}
	if o.Generation != 0 {
		s += fmt.Sprintf(" generation %d", o.Generation)
	}
	if o.Partner != 0 {
		s += fmt.Sprintf(" partner %v", o.Partner)
	}
	if o.Owner != 0 {
		s += fmt.Sprintf(" owner %d", o.Owner)
	}
	if o.Tag != 0 {
		s += fmt.Sprintf(" tag %#x", o.Tag)
	}
	if len(o.Sums) > 0 {
		s += fmt.Sprintf(" sums %08x", o.Sums)
	}
	return s
}
