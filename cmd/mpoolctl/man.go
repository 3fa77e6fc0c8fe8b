package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newMan(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "man DIR",
		Short: "Write manual pages, one per command, into a directory",
		Long: `Write manual pages, one per command, into a directory, which is made if it is
missing.`,
		Example: `  mpoolctl man /usr/local/share/man/man1`,
		Args:    cobra.ExactArgs(1),
	}
	c.RunE = a.verb(func(_ context.Context, args []string) error {
		if err := os.MkdirAll(args[0], 0o755); err != nil {
			return err
		}
		return writeManTree(args[0], c.Root())
	})
	return c
}

// writeManTree writes the pages of a command and of those below it.
func writeManTree(dir string, c *cobra.Command) error {
	var page strings.Builder
	writeManPage(&page, c)
	name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(page.String()), 0o644); err != nil {
		return err
	}
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() {
			continue
		}
		if err := writeManTree(dir, sub); err != nil {
			return err
		}
	}
	return nil
}

// writeManPage writes one page in roff with the man macros.
func writeManPage(w *strings.Builder, c *cobra.Command) {
	name := strings.ReplaceAll(c.CommandPath(), " ", "-")
	fmt.Fprintf(w, ".TH %s 1 \"\" mpool \"mpool manual\"\n", roff(strings.ToUpper(name)))
	fmt.Fprintf(w, ".SH NAME\n%s \\- %s\n", roff(name), roff(c.Short))
	fmt.Fprintf(w, ".SH SYNOPSIS\n.B %s\n", roff(c.UseLine()))
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	fmt.Fprintf(w, ".SH DESCRIPTION\n.nf\n%s\n.fi\n", roff(text))
	writeManFlags(w, "OPTIONS", c.NonInheritedFlags())
	writeManFlags(w, "GLOBAL OPTIONS", c.InheritedFlags())
	if c.HasExample() {
		fmt.Fprintf(w, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(c.Example))
	}
	var also []string
	if c.HasParent() {
		also = append(also, c.Parent().CommandPath())
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			also = append(also, sub.CommandPath())
		}
	}
	if len(also) > 0 {
		fmt.Fprint(w, ".SH SEE ALSO\n")
		for i, path := range also {
			comma := ","
			if i == len(also)-1 {
				comma = ""
			}
			fmt.Fprintf(w, ".BR %s (1)%s\n", roff(strings.ReplaceAll(path, " ", "-")), comma)
		}
	}
}

func writeManFlags(w *strings.Builder, heading string, flags *pflag.FlagSet) {
	var b strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if value != "" {
			name += " " + value
		}
		fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(name), roff(usage))
	})
	if b.Len() > 0 {
		fmt.Fprintf(w, ".SH %s\n%s", heading, b.String())
	}
}

// roff makes text safe in a page: no escapes, no requests, hyphens that can be
// searched for and copied.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
