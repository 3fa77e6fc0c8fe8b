package daemon

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Main builds mpoold, gives its path, runs a package's tests and returns the exit
// code. A goroutine that is left is a failure.
func Main(m *testing.M, race bool, path *string) int {
	dir, err := os.MkdirTemp("", "mpoold")
	if err == nil {
		*path, err = Build(dir, race)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := errors.Join(goleak.Find(), os.RemoveAll(dir)); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
