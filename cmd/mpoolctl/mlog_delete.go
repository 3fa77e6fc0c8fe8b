package main

import (
	"github.com/spf13/cobra"
)

func newMlogDelete(a *app) *cobra.Command {
	return newObjectDelete(a, "mlog", openMlog)
}
