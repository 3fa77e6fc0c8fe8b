//go:build !amd64

package death

func overwriteMain() { panic("it does not know this machine's registers") }
