package kube

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// readLimit is how long reading a whole cluster once may take.
const readLimit = 30 * time.Second

// Once reads all that Gatehouse would watch, hands it to look, and again with the bodies of the Secrets that look asks for, until it
// asks for none. It leaves nothing running. An error names what could not be read in time.
func (c *Cluster) Once(ctx context.Context, look func(objects.Change, []diag.Fault) (want []objects.Key)) error {
	if _, err := c.discovery.ServerVersion(); err != nil {
		return fmt.Errorf("asking the API server for its version: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	done := false
	err := c.Run(ctx, func(change objects.Change, faults []diag.Fault) {
		want := look(change, faults)
		if len(want) == 0 {
			done = true
			cancel()
			return
		}
		c.Fetch(want)
	})
	if err != nil || done {
		return err
	}
	if left := c.Waiting(); len(left) > 0 {
		return fmt.Errorf("reading the cluster: no answer for %s", strings.Join(left, ", "))
	}
	return fmt.Errorf("reading the cluster: %w", context.Cause(ctx))
}
