package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// walk calls f with every command that can be run by itself.
func walk(c *cobra.Command, f func(path string, c *cobra.Command)) {
	for _, sub := range c.Commands() {
		if sub.HasSubCommands() {
			walk(sub, f)
			continue
		}
		f(strings.TrimPrefix(sub.CommandPath(), "mpoolctl "), sub)
	}
}

// minArgs are arguments that a verb's usage asks for.
func minArgs(c *cobra.Command) []string {
	var args []string
	for _, word := range strings.Fields(c.Use)[1:] {
		if !strings.HasPrefix(word, "[") {
			args = append(args, "x")
		}
	}
	return args
}

// Every verb has a sentence, an explanation where its name is not one, and an
// example that it would understand; its help goes to stdout.
func TestEveryVerbExplainsItself(t *testing.T) {
	walk(newRootCommand(&app{}), func(path string, c *cobra.Command) {
		t.Run(path, func(t *testing.T) {
			if c.Short == "" || len(c.Short) > 76 || strings.HasSuffix(c.Short, ".") {
				t.Errorf("short description %q: want one, of up to 76 characters, without a full stop", c.Short)
			}
			for _, text := range []string{c.Long, c.Example} {
				for l := range strings.Lines(text) {
					if l = strings.TrimRight(l, "\n"); len(l) > 90 || strings.TrimRight(l, " ") != l {
						t.Errorf("a line of %d characters, or spaces at its end: %q", len(l), l)
					}
				}
			}
			if !strings.Contains(c.Example, "mpoolctl") || !strings.Contains(c.Example, strings.Fields(path)[0]) {
				t.Errorf("no example: %q", c.Example)
			}
			r := ctl(t, newFakeDaemon(), "", append(strings.Fields(path), "--help")...)
			if r.code != exitDone || r.errOut != "" {
				t.Errorf("--help: %+v", r)
			}
			for _, want := range []string{"Usage:\n  mpoolctl " + path, c.Example, "--json", "--yes"} {
				if !strings.Contains(r.out, want) {
					t.Errorf("--help: no %q in\n%s", want, r.out)
				}
			}
		})
	})
}

// The examples are command lines that are understood: their flags exist and
// their arguments are as many as the verb takes.
func TestExamplesParse(t *testing.T) {
	root := newRootCommand(&app{})
	walk(root, func(_ string, c *cobra.Command) {
		for line := range strings.Lines(c.Example) {
			words := exampleWords(line)
			found, rest, err := newRootCommand(&app{}).Find(words)
			if err != nil || found.CommandPath() != c.CommandPath() {
				t.Errorf("%q: %v, %v", line, found.CommandPath(), err)
				continue
			}
			if err := found.ParseFlags(rest); err != nil {
				t.Errorf("%q: %v", line, err)
			}
			if strings.Contains(line, "xargs") {
				continue
			}
			if err := found.ValidateArgs(found.Flags().Args()); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	})
}

// exampleWords takes the last mpoolctl command out of a line of shell.
func exampleWords(line string) []string {
	line = line[strings.LastIndex(line, "mpoolctl ")+len("mpoolctl "):]
	for _, end := range []string{"|", ">", "&&", ")\n"} {
		line, _, _ = strings.Cut(line, end)
	}
	var words []string
	for i, piece := range strings.Split(line, "'") {
		if i%2 == 1 { // quoted
			words[len(words)-1] += piece
			continue
		}
		words = append(words, strings.Fields(piece)...)
	}
	return words
}

// What is wrong with a command line is exit code 2 for every verb, with its
// usage on stderr and nothing on stdout.
func TestEveryVerbRefusesWrongUsage(t *testing.T) {
	walk(newRootCommand(&app{}), func(path string, c *cobra.Command) {
		args := append(strings.Fields(path), minArgs(c)...)
		wrong := [][]string{append(slices.Clone(args), "--nonsense")}
		if len(minArgs(c)) > 0 {
			wrong = append(wrong, strings.Fields(path))
		}
		if !strings.Contains(c.Use, "...") {
			wrong = append(wrong, append(slices.Clone(args), "x", "x", "x", "x"))
		}
		for _, w := range wrong {
			for _, more := range []string{"--quiet", "--json"} {
				r := ctl(t, newFakeDaemon("x"), "", append(slices.Clone(w), more)...)
				if r.code != exitUsage || r.out != "" || !strings.Contains(r.errOut, "Usage: mpoolctl "+path) {
					t.Errorf("%q: %+v", w, r)
				}
			}
		}
	})
}

// Every verb takes --yes and --quiet, before and after its name.
func TestEveryVerbTakesTheCommonOptions(t *testing.T) {
	walk(newRootCommand(&app{}), func(path string, _ *cobra.Command) {
		for _, f := range []string{"--yes", "--quiet", "--json", "--socket=/s", "-y", "-q"} {
			root := newRootCommand(&app{})
			c, rest, err := root.Find(append(strings.Fields(path), f))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.ParseFlags(rest); err != nil {
				t.Errorf("%s %s: %v", path, f, err)
			}
		}
	})
}
