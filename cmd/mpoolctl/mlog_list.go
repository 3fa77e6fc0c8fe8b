package main

import (
	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/layout"
)

func newMlogList(a *app) *cobra.Command {
	c := newObjectList(a, layout.KindMlog)
	c.Long += `

How long a log is, and how many records it has, is known while somebody has it open,
and 0 else: mlog show opens it to see.`
	return c
}
