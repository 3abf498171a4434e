// Command image puts the binaries of gatehouse into a container image without a container engine: an OCI layout with one image for
// each platform, a file for each that `docker load` takes, and, if asked, a push to a registry. The same binaries and time give the
// same bytes.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	o := options{stdout: stdout}
	var epoch int64
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&o.out, "out", "", "folder to write to; what an earlier run wrote there goes")
	flags.StringVar(&o.version, "version", "unknown", "version of gatehouse")
	flags.StringVar(&o.revision, "revision", "", "commit that it was built from")
	flags.StringVar(&o.name, "name", "gatehouse", "name of the image when it is loaded")
	flags.StringVar(&o.push, "push", "", "registry/name:tag to push to as well")
	flags.Int64Var(&epoch, "epoch", 0, "seconds since 1970 that all times are set to")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: image -out FOLDER [flags] OS/ARCH=BINARY...")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	o.created = time.Unix(epoch, 0).UTC()
	for _, a := range flags.Args() {
		p, file, ok := strings.Cut(a, "=")
		system, arch, ok2 := strings.Cut(p, "/")
		if !ok || !ok2 {
			return fmt.Errorf("%q is not OS/ARCH=BINARY", a)
		}
		o.programs = append(o.programs, program{system: system, arch: arch, file: file})
	}
	if o.out == "" || len(o.programs) == 0 {
		return fmt.Errorf("-out and at least one OS/ARCH=BINARY are needed")
	}
	return o.write()
}
