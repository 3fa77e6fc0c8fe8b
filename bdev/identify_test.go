package bdev

import (
	"os"
	"path/filepath"
	"testing"
)

// A device is the same by whatever path, and no other.
func TestIdentify(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(path("a"), path("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path("a"), path("hard")); err != nil {
		t.Fatal(err)
	}
	a, ok := Identify(path("a"))
	if !ok {
		t.Fatal("a file is no device")
	}
	for name, same := range map[string]bool{"link": true, "hard": true, "b": false} {
		if id, ok := Identify(path(name)); !ok || (id == a) != same {
			t.Errorf("%s: %v, %v", name, id, ok)
		}
	}
	for _, name := range []string{dir, path("none"), "/dev/null"} {
		if _, ok := Identify(name); ok {
			t.Errorf("%s passes for a device", name)
		}
	}
}
