// Command controlplane is the control plane of the test cluster in one binary: its first argument says which part it plays.
//
// One binary, because linking each part alone would compile and link the same code four times. It is a module of its own, so that
// neither the product nor the package that tests import has Kubernetes' own code among its dependencies. It decides nothing: all
// settings come as flags from package cluster.
package main

import (
	"fmt"
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: controlplane etcd | kube-apiserver | kube-controller-manager | kubectl [flags]")
		os.Exit(2)
	}
	part := os.Args[1]
	// The parts read os.Args themselves, kubectl for its plugins, the servers for their usage.
	os.Args = append([]string{part}, os.Args[2:]...)
	switch part {
	case "etcd":
		if err := etcd(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "etcd:", err)
			os.Exit(1)
		}
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(controllermanager.NewControllerManagerCommand()))
	case "kubectl":
		if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		fmt.Fprintf(os.Stderr, "controlplane: no part %q\n", part)
		os.Exit(2)
	}
}
