// Command gatehouse is the edge of a Kubernetes cluster: an ingress controller and an API gateway in one binary, which
// also runs on YAML files. It wires the rooms together and decides nothing itself.
package main

import (
	"context"
	"os"
)

// version is stamped in by the build.
var version = "unknown"

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}
