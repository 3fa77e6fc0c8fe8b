package scopes

import (
	"os"
	"testing"

	"github.com/mpool-go/mpool/test/daemon"
)

var mpoold string

func TestMain(m *testing.M) {
	if socket := os.Getenv(unrulyEnv); socket != "" {
		unruly(socket)
	}
	os.Exit(daemon.Main(m, false, &mpoold))
}
