package main

import (
	"context"
	"fmt"
	"io"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

func runRoutes(ctx context.Context, c *call) error {
	files, p, o := c.files(), c.ports(), c.output()
	rest, err := c.parse()
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return &usageError{fmt.Sprintf("unexpected %q: paths go behind -f", rest[0])}
	}
	if err := oneOf("-o", *o, "text", "json"); err != nil {
		return err
	}
	opt, err := p.options()
	if err != nil {
		return err
	}
	f, err := load(ctx, files.values, opt)
	if err != nil {
		return err
	}
	if *o == "json" {
		return writeJSON(c, f.result.Config)
	}
	if n := len(f.faults); n > 0 {
		fmt.Fprintf(c.stderr, "%s: gatehouse check shows them\n", count(n, "fault"))
	}
	_, err = io.WriteString(c.stdout, ir.RoutesText(f.result.Config))
	return err
}
