package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// TestMain lets the test binary stand in for mpoolctl in the scripts, and
// checks that the other tests leave no goroutine behind.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"mpoolctl": main})
}

// leakChecked runs the tests and then looks for goroutines.
type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if err := removeDaemon(); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			return 1
		}
	}
	return code
}

// TestScripts runs the scripts of testdata that need no daemon.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			// A program with the race detector otherwise waits a second at its end.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"usage": scriptUsage},
	})
}

// result is what a command line did.
type result struct {
	code   int
	out    string
	errOut string
}

// ctl runs a command line against a daemon in memory.
func ctl(t *testing.T, d *fakeDaemon, stdin string, args ...string) result {
	t.Helper()
	return ctlContext(t.Context(), d, strings.NewReader(stdin), args...)
}

func ctlContext(ctx context.Context, d *fakeDaemon, stdin io.Reader, args ...string) result {
	var out, errOut bytes.Buffer
	a := &app{
		stdin: stdin, stdout: &out, stderr: &errOut,
		dial:     dialFake(d),
		terminal: func(any) bool { return false },
	}
	code := a.execute(ctx, args)
	return result{code: code, out: out.String(), errOut: errOut.String()}
}

// ok runs a command line that must succeed and returns its output.
func ok(t *testing.T, d *fakeDaemon, args ...string) string {
	t.Helper()
	r := ctl(t, d, "", args...)
	if r.code != exitDone {
		t.Fatalf("%q: exit %d, stderr %s", args, r.code, r.errOut)
	}
	return r.out
}

// decode reads one JSON document, which must be all there is.
func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	dec := json.NewDecoder(strings.NewReader(text))
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	if dec.More() {
		t.Fatalf("more than one document in %q", text)
	}
	return v
}

// scriptUsage is a command of the scripts: usage CODE REGEXP ARG... runs
// mpoolctl and wants that exit code and an stderr that matches.
func scriptUsage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: usage CODE REGEXP ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec("mpoolctl", args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if stderr := ts.ReadFile("stderr"); code != want || !regexp.MustCompile(args[1]).MatchString(stderr) {
		ts.Fatalf("exit %d, want %d; stderr does not match %q: %s", code, want, args[1], stderr)
	}
}
