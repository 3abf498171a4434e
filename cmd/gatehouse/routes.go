package main

import (
	"context"
	"fmt"
	"io"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

func runRoutes(ctx context.Context, c *call) error {
	f, asJSON, err := c.loadAll(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(c, f.result.Config)
	}
	if n := len(f.faults); n > 0 {
		fmt.Fprintf(c.stderr, "%s: gatehouse check shows them\n", count(n, "fault"))
	}
	_, err = io.WriteString(c.stdout, ir.RoutesText(f.result.Config))
	return err
}
