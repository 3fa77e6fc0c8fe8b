// Mutants breaks the engine's safety rules one at a time and runs the crash
// tests against each: a crash test counts for something only if it can fail.
//
//	go run ./test/mutants [-for 30s] [-run NAME] [-sample N] [-list | -control]
//
// A mutant replaces a piece of source text, which must be there exactly once,
// through the go command's -overlay; the tree is not touched. It exits with 1
// if a mutant survives or no longer applies. A test that fails in any case would
// catch all of them: -control runs the same tests in the same way with nothing
// broken, and exits with 1 if one fails.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// mutant is one broken rule.
type mutant struct {
	name string // what is broken
	file string // relative to the module's root
	old  string
	new  string
	pkg  string // whose tests must fail; default ./test/sim
	test string // which of them; default the crash tests
	args string // flags of theirs, between spaces
}

const crashTests = "^(TestCrashRandom|TestCrashEveryBoundary)$"

// hang is how long tests may take at least that say themselves how long they run.
const hang = 5 * time.Minute

func main() {
	limit := flag.Duration("for", 30*time.Second, "how long each of the two crash tests may take to find a mutant")
	only := flag.String("run", "", "run the mutants whose name contains this")
	sample := flag.Int("sample", 0, "run so many of them, drawn by chance; 0: all")
	list := flag.Bool("list", false, "list the mutants and exit")
	control := flag.Bool("control", false, "break nothing, and run each of the tests once: they must pass")
	flag.Parse()
	chosen := choose(*only, *sample)
	var err error
	switch {
	case *list:
		for _, m := range chosen {
			fmt.Printf("%-48s %s\n", m.name, m.file)
		}
	case *control:
		err = run(os.Stdout, controls(chosen), *limit, "passed", "FAILED")
	default:
		err = run(os.Stdout, chosen, *limit, "SURVIVED", "caught")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// choose returns the mutants whose name contains only; sample of them, unless that is 0.
func choose(only string, sample int) []mutant {
	chosen := slices.DeleteFunc(mutants(), func(m mutant) bool { return !strings.Contains(m.name, only) })
	if sample > 0 && sample < len(chosen) {
		rand.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
		chosen = chosen[:sample]
	}
	return chosen
}

// controls returns what runs the tests of mutants, each once, and breaks nothing.
func controls(list []mutant) (tests []mutant) {
	for _, m := range list {
		c := mutant{name: strings.Join([]string{m.pkg, m.test, m.args}, " "), pkg: m.pkg, test: m.test, args: m.args}
		if !slices.Contains(tests, c) {
			tests = append(tests, c)
		}
	}
	return tests
}

// run tries what is chosen. passes and fails say what it means that tests pass or fail;
// what is in capitals is not wanted.
func run(out io.Writer, chosen []mutant, limit time.Duration, passes, fails string) error {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module: %w", err)
	}
	tmp, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // a leftover in the system's temporary folder
	bad := 0
	for _, m := range chosen {
		start := time.Now()
		caught, err := try(m, strings.TrimSpace(string(root)), tmp, limit)
		verdict := fails
		if err != nil {
			verdict, caught = "BROKEN", err.Error()
		} else if caught == "" {
			verdict = passes
		}
		if verdict == strings.ToUpper(verdict) {
			bad++
		}
		fmt.Fprintf(out, "%-8s %6.1fs  %s\n", verdict, time.Since(start).Seconds(), m.name)
		if caught != "" {
			fmt.Fprintf(out, "                  %s\n", caught)
		}
	}
	fmt.Fprintf(out, "%d tried, %d as wanted\n", len(chosen), len(chosen)-bad)
	if bad > 0 {
		return fmt.Errorf("%d are not as wanted", bad)
	}
	return nil
}

// try runs the tests over the mutant and returns the line that caught it, or "".
func try(m mutant, root, tmp string, limit time.Duration) (string, error) {
	overlay, err := plant(m, root, tmp)
	if err != nil {
		return "", err
	}
	pkg, test, args := m.pkg, m.test, strings.Fields(m.args)
	if pkg == "" {
		pkg, args = "./test/sim", []string{"-sim.for", limit.String()}
		if test == "" {
			test = crashTests
		}
	}
	bin := filepath.Join(tmp, "mutant.test")
	build := exec.Command("go", "test", "-c", "-overlay", overlay, "-o", bin, pkg)
	build.Dir = root
	if msg, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("it does not build: %w\n%s", err, msg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), max(4*limit+time.Minute, hang))
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, append([]string{"-test.run", test, "-test.failfast", "-test.short"}, args...)...)
	cmd.Dir = filepath.Join(root, pkg)
	// Tests that build the daemon build the mutant, too.
	cmd.Env = append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay, "MPOOL_TEST_BUILT=")
	msg, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "", nil
	case ctx.Err() != nil:
		return "", errors.New("the tests hang")
	case !errors.As(err, &exit):
		return "", err
	}
	if bytes.Contains(msg, []byte("build mpoold: ")) {
		return "", fmt.Errorf("the daemon does not build:\n%s", msg)
	}
	for line := range bytes.Lines(msg) {
		if bytes.Contains(line, []byte(": seed ")) {
			continue
		}
		if bytes.Contains(line, []byte("_test.go:")) || bytes.Contains(line, []byte("panic:")) {
			return strings.TrimSpace(string(line)), nil
		}
	}
	return strings.TrimSpace(string(msg[:min(len(msg), 200)])), nil
}

// plant writes the mutated file and an overlay that names it; without a file, one that
// names none.
func plant(m mutant, root, tmp string) (string, error) {
	replace := map[string]string{}
	if m.file != "" {
		path := filepath.Join(root, m.file)
		src, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if n := bytes.Count(src, []byte(m.old)); n != 1 {
			return "", fmt.Errorf("its text is %d times in %s; bring the list up to date", n, m.file)
		}
		mutated := filepath.Join(tmp, "mutated.go")
		if err := os.WriteFile(mutated, bytes.Replace(src, []byte(m.old), []byte(m.new), 1), 0o666); err != nil {
			return "", err
		}
		replace[path] = mutated
	}
	overlay := filepath.Join(tmp, "overlay.json")
	b, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return "", err
	}
	return overlay, os.WriteFile(overlay, b, 0o666)
}
