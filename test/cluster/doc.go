// Package cluster is a real Kubernetes control plane for tests, without a container engine: etcd, kube-apiserver and
// kube-controller-manager are processes, and a node agent in the test's own process stands in for scheduler, kubelet and kube-proxy.
//
// Everything runs in a lab: network, mount, process and, where the user is not root, user namespaces that the test process makes for
// itself by starting itself anew (Lab, Enter). The lab has no way out to any network, and its first process is the test, so whatever
// way the test ends the kernel ends everything else. In the lab the test is on the node: it reaches pods, services, load balancer
// addresses and the API server by their addresses.
//
// What a pod gets is what a kubelet and a container runtime promise and no more (user ids, capabilities, read-only roots, probes,
// volumes that follow their objects, graceful ends), so that what passes here passes on a cluster. Images are static programs of this
// machine. What is missing fails loudly: a pod that asks for it says so in its status.
//
// The package never pulls an image, never touches the machine's network, and never leaves a file outside of the folders it was given.
package cluster
