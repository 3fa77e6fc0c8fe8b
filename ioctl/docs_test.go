package ioctl

import (
	"os"
	"strings"
	"testing"
)

// The page for people who write clients in another language must list every
// operation as the package comment does.
func TestProtocolPageListsEveryOperation(t *testing.T) {
	page, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	comment, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(comment), "// # Operations")
	if !ok {
		t.Fatal("no table of operations in the package comment")
	}
	lines := 0
	for line := range strings.Lines(table) {
		row, ok := strings.CutPrefix(line, "//\t")
		if !ok {
			continue
		}
		lines++
		if !strings.Contains(string(page), "\n"+row) {
			t.Errorf("docs/protocol.md lacks %q", strings.TrimSpace(row))
		}
	}
	if lines < 50 {
		t.Errorf("only %d lines of operations", lines)
	}
}
