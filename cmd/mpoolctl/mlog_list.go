package main

import (
	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/layout"
)

func newMlogList(a *app) *cobra.Command {
	return newObjectList(a, layout.KindMlog)
}
