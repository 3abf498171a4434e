// Command cluster runs a test cluster until Ctrl-C, or as long as a command that it is given:
//
//	cluster -image shop/web=bin/web -apply deploy/            # kubectl on this machine reaches it
//	cluster -- go test ./conformance/...                     # the command runs in the lab, with KUBECONFIG set
//
// The process that the user starts stays in the machine's network; it builds what is missing, opens the socket that kubectl reaches,
// and hands it to the lab, which it starts this program in once more. Everything else happens there.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

func main() {
	cluster.Main()
	status, err := run(os.Args[1:], os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		status = 1
	}
	os.Exit(status)
}

// settings are the flags. Both processes read the same ones.
type settings struct {
	images     list
	apply      list
	gatewayAPI string
	listen     string
	kubeconfig string
	logDir     string
	echo       bool
	gatehouse  bool
	verbose    bool
	command    []string
}

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// listenerFile is the number of the file that is the listener for kubectl, in the lab.
const listenerFile = 3

func run(args []string, stdout, stderr io.Writer) (int, error) {
	var s settings
	f := flag.NewFlagSet("cluster", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Var(&s.images, "image", "`name=path[:user]`: the static program that stands for an image, and the user id it runs as (repeatable)")
	f.Var(&s.apply, "apply", "`file` or folder of YAML to apply, in the order given (repeatable)")
	f.StringVar(&s.gatewayAPI, "gateway-api", "", "`channel` of the Gateway API's CRDs to apply first: standard or experimental")
	f.BoolVar(&s.echo, "echo", true, "have the images that the Gateway API's conformance manifests name")
	f.BoolVar(&s.gatehouse, "gatehouse", false, "build Gatehouse and install it with the chart, after what -gateway-api applies and before -apply")
	f.StringVar(&s.listen, "listen", "127.0.0.1:16443", "where this machine's kubectl reaches the API server; empty for nowhere")
	f.StringVar(&s.kubeconfig, "kubeconfig", "", "`file` to write the kubeconfig for this machine to (default .cache/cluster.kubeconfig)")
	f.StringVar(&s.logDir, "logs", "", "existing `folder` for the control plane's logs")
	f.BoolVar(&s.verbose, "v", false, "print what the nodes do")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0, nil
	} else if err != nil {
		return 2, nil
	}
	s.command = f.Args()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if cluster.InLab() {
		return s.inside(ctx, stdout, stderr)
	}
	return s.outside(args, stderr)
}

// outside builds what needs the network, opens the way in, and starts the lab.
func (s *settings) outside(args []string, stderr io.Writer) (int, error) {
	ctx := context.Background() // signals go to the lab, which ends by itself
	if err := cluster.CanLab(); err != nil {
		return 0, err
	}
	if _, err := cluster.BuildControlPlane(ctx, stderr); err != nil {
		return 0, err
	}
	if s.echo {
		if _, err := cluster.BuildEchoBasic(ctx, stderr); err != nil {
			return 0, err
		}
	}
	if s.gatewayAPI != "" {
		if _, err := cluster.GatewayAPICRDs(ctx, s.gatewayAPI); err != nil {
			return 0, err
		}
	}
	if s.gatehouse {
		if err := cluster.PrepareGatehouse(ctx); err != nil {
			return 0, err
		}
	}
	if s.listen == "" {
		return cluster.Enter(ctx, args)
	}
	l, err := net.Listen("tcp", s.listen)
	if err != nil {
		return 0, fmt.Errorf("listening for kubectl (-listen says where): %w", err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return 0, fmt.Errorf("listening for kubectl: %w", err)
	}
	l.Close() // the lab's copy lives on
	defer f.Close()
	return cluster.Enter(ctx, args, f)
}

// relay passes every connection on to the API server, until the listener closes.
func relay(l net.Listener, api string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			out, err := net.Dial("tcp", api)
			if err != nil {
				in.Close()
				return
			}
			cluster.Relay(in.(*net.TCPConn), out.(*net.TCPConn))
		}()
	}
}

// inside runs the cluster in the lab.
func (s *settings) inside(ctx context.Context, stdout, stderr io.Writer) (status int, err error) {
	o := cluster.Options{LogDir: s.logDir}
	if s.verbose {
		o.Log = slog.New(slog.NewTextHandler(stderr, nil))
	}
	if o.Images, err = s.imageList(ctx, stderr); err != nil {
		return 0, err
	}
	begin := time.Now()
	c, err := cluster.Start(ctx, o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	fmt.Fprintf(stderr, "cluster: ready after %s\n", time.Since(begin).Round(100*time.Millisecond))
	if err := s.applyAll(ctx, c); err != nil {
		return 0, err
	}
	where, err := s.openAPI(c)
	if err != nil {
		return 0, err
	}
	if len(s.command) > 0 {
		return runCommand(ctx, c, s.command)
	}
	if where != "" {
		fmt.Fprintf(stdout, "\nKubeconfig: %s\n\n  export KUBECONFIG=%[1]s\n  kubectl get pods -A\n\n", where)
		fmt.Fprintf(stdout, "Without a kubectl: %s kubectl get pods -A\n", c.Kubectl()[0])
	}
	fmt.Fprintln(stdout, "Pods and services are reached from within the lab only: cluster -- COMMAND runs a command there. Ctrl-C ends it all.")
	<-ctx.Done()
	return 0, nil
}

func (s *settings) imageList(ctx context.Context, stderr io.Writer) ([]cluster.Image, error) {
	var images []cluster.Image
	for _, i := range s.images {
		name, path, ok := strings.Cut(i, "=")
		if !ok {
			return nil, fmt.Errorf("-image %q: want name=path", i)
		}
		image := cluster.Image{Name: name}
		if p, user, ok := strings.Cut(path, ":"); ok {
			path = p
			if _, err := fmt.Sscan(user, &image.User); err != nil {
				return nil, fmt.Errorf("-image %q: the user id: %w", i, err)
			}
		}
		var err error
		if image.Program, err = filepath.Abs(path); err != nil {
			return nil, err
		}
		if _, err := os.Stat(image.Program); err != nil {
			return nil, fmt.Errorf("-image %q: %w", i, err)
		}
		images = append(images, image)
	}
	if s.gatehouse {
		own, err := cluster.GatehouseUnderTest()
		if err != nil {
			return nil, err
		}
		images = append(images, own)
	}
	if s.echo {
		more, err := cluster.ConformanceImages(ctx, stderr)
		if err != nil {
			return nil, err
		}
		images = append(images, more...)
	}
	return images, nil
}

func (s *settings) applyAll(ctx context.Context, c *cluster.Cluster) error {
	var docs [][]byte
	if s.gatewayAPI != "" {
		if err := c.InstallGatewayAPI(ctx, s.gatewayAPI); err != nil {
			return err
		}
	}
	if s.gatehouse {
		if err := c.InstallGatehouse(ctx, cluster.Release{}); err != nil {
			return err
		}
	}
	for _, root := range s.apply {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || path != root && !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
				return err
			}
			raw, err := os.ReadFile(path)
			docs = append(docs, raw)
			return err
		})
		if err != nil {
			return fmt.Errorf("-apply %s: %w", root, err)
		}
	}
	return c.Apply(ctx, docs...)
}

// openAPI connects the listener from outside with the API server, and writes a kubeconfig that goes through it. It returns its path.
func (s *settings) openAPI(c *cluster.Cluster) (string, error) {
	if s.listen == "" {
		return "", nil
	}
	f := os.NewFile(listenerFile, "listener")
	l, err := net.FileListener(f)
	if err != nil {
		return "", fmt.Errorf("opening the way to the API server: %w", err)
	}
	f.Close() // l has a copy, which commands that run in the lab do not inherit
	go relay(l, c.APIAddr().String())
	path := s.kubeconfig
	if path == "" {
		cache, err := cluster.CacheDir()
		if err != nil {
			return "", err
		}
		path = filepath.Join(cache, "cluster.kubeconfig")
	}
	return path, c.WriteKubeconfig(path, "https://"+s.listen)
}

// runCommand runs a command in the lab and returns its exit status.
func runCommand(ctx context.Context, c *cluster.Cluster, command []string) (int, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("running %s: %w", command[0], err)
	}
	return 0, nil
}
