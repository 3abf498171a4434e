package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

// A command is one subcommand. Its name may have two words: those that begin with the same one are shown together.
type command struct {
	name, args, short string
	run               func(ctx context.Context, c *call) error
}

// call is one invocation of a subcommand.
type call struct {
	command
	argv           []string
	getenv         func(string) string
	stdout, stderr io.Writer
	flags          *flag.FlagSet
}

func commands() []command {
	return slices.Concat([]command{
		{"run", "[-f PATH[,PATH...]] [flags]", "serve what a cluster, or with -f files, say, and follow their changes", runServe},
		{"check", "[-f PATH[,PATH...]] [-o text|json]", "tell every fault in files or a cluster, and what it needs; exit 1 if there is one", runCheck},
		{"routes", "[-f PATH[,PATH...]] [-o text|json]", "show the effective routes, in match order", runRoutes},
		{"explain", "[-f PATH[,PATH...]] METHOD URL [-H 'Name: value']... [--from IP] [-o text|json]",
			"tell what would happen to a request, and why", runExplain},
		{"status", "[-o text|json]", "show what Gatehouse runs in a cluster and what it wrote into status; exit 1 if something is not as wished", runStatus},
	}, keyCommands(), []command{
		{"version", "", "show the version", runVersion},
	})
}

// Exit codes: 0 done, 1 it did not succeed or found faults, 2 the command line was wrong.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a fault in the command line.
type usageError struct{ msg string }

func (u *usageError) Error() string { return u.msg }

// errFound ends a command that has told what it found.
var errFound = errors.New("faults found")

// run is the whole program: it returns the exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return exitUsage
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		usage(stdout)
		return 0
	case "-version", "--version":
		args = []string{"version"}
	}
	var group []command
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if len(args) >= len(words) && slices.Equal(words, args[:len(words)]) {
			return dispatch(ctx, &call{command: c, argv: args[len(words):], getenv: getenv, stdout: stdout, stderr: stderr})
		}
		if words[0] == args[0] {
			group = append(group, c)
		}
	}
	if len(group) > 0 {
		return runGroup(group, args, stdout, stderr)
	}
	fmt.Fprintf(stderr, "gatehouse: no command %q\n\n", args[0])
	usage(stderr)
	return exitUsage
}

// runGroup answers a command line that names the first word of some commands and none of them.
func runGroup(group []command, args []string, stdout, stderr io.Writer) int {
	w, code := stderr, exitUsage
	if len(args) > 1 {
		switch args[1] {
		case "help", "-h", "-help", "--help":
			w, code = stdout, 0
		default:
			fmt.Fprintf(stderr, "gatehouse %s: no command %q\n\n", args[0], args[1])
		}
	}
	fmt.Fprintf(w, "Usage: gatehouse %s COMMAND [flags]\n\n", args[0])
	printCommands(w, group)
	fmt.Fprintf(w, "\ngatehouse %s COMMAND -h shows a command's flags.\n", args[0])
	return code
}

func dispatch(ctx context.Context, c *call) int {
	c.flags = flag.NewFlagSet("gatehouse "+c.name, flag.ContinueOnError)
	c.flags.SetOutput(io.Discard)
	err := c.command.run(ctx, c)
	var u *usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		c.help(c.stdout)
		return 0
	case errors.As(err, &u):
		fmt.Fprintf(c.stderr, "gatehouse %s: %s\nUsage: %s; -h shows the flags\n", c.name, u.msg, c.usage())
		return exitUsage
	case !errors.Is(err, errFound):
		fmt.Fprintf(c.stderr, "gatehouse %s: %v\n", c.name, err)
	}
	return exitFailed
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Gatehouse is an ingress controller and API gateway. It serves Kubernetes YAML, with or without a cluster.\n\n"+
		"Usage: gatehouse COMMAND [flags]\n\n")
	printCommands(w, commands())
	fmt.Fprint(w, "\ngatehouse COMMAND -h shows a command's flags.\n")
}

func printCommands(w io.Writer, all []command) {
	for _, c := range all {
		fmt.Fprintf(w, "  %-10s  %s\n", c.name, c.short)
	}
}

func (c *command) usage() string { return strings.TrimSpace("gatehouse " + c.name + " " + c.args) }

func (c *call) help(w io.Writer) {
	fmt.Fprintf(w, "Usage: %s\n\n%s%s.\n", c.usage(), strings.ToUpper(c.short[:1]), c.short[1:])
	first := true
	c.flags.VisitAll(func(f *flag.Flag) {
		if first {
			fmt.Fprint(w, "\nFlags:\n")
			first = false
		}
		name := "--" + f.Name
		if len(f.Name) == 1 {
			name = "-" + f.Name
		}
		def := ""
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" {
			def = " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "  %-20s  %s%s\n", name, f.Usage, def)
	})
}

// parse reads flags and arguments in any order and returns the arguments.
func (c *call) parse() ([]string, error) {
	var rest []string
	args := c.argv
	for {
		if err := c.flags.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, &usageError{err.Error()}
		}
		if c.flags.NArg() == 0 {
			return rest, nil
		}
		rest = append(rest, c.flags.Arg(0))
		args = c.flags.Args()[1:]
	}
}

// list is a flag that may be repeated; with split, each value may itself be a list.
type list struct {
	values []string
	split  bool
}

func (l *list) String() string { return strings.Join(l.values, ",") }

func (l *list) Set(s string) error {
	if !l.split {
		l.values = append(l.values, s)
		return nil
	}
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			l.values = append(l.values, v)
		}
	}
	return nil
}

// files defines -f.
func (c *call) files() *list {
	l := &list{split: true}
	c.flags.Var(l, "f", "file or folder of Kubernetes YAML; several with commas or repeated")
	return l
}

func (c *call) output() *string { return c.flags.String("o", "text", "output: text or json") }

func oneOf(flagName, v string, allowed ...string) error {
	if !slices.Contains(allowed, v) {
		return &usageError{fmt.Sprintf("%s is %q; write %s", flagName, v, strings.Join(allowed, " or "))}
	}
	return nil
}

func runVersion(_ context.Context, c *call) error {
	if _, err := c.parse(); err != nil {
		return err
	}
	v := version
	if bi, ok := debug.ReadBuildInfo(); ok && v == "unknown" && bi.Main.Version != "" {
		v = bi.Main.Version
	}
	_, err := fmt.Fprintf(c.stdout, "gatehouse %s %s %s/%s\n", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
