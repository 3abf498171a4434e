package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// labVariable is set in the environment of what runs in the lab.
const labVariable = "GATEHOUSE_LAB"

// requireVariable lists, separated by commas, what a run must not skip for want of a machine that can do it.
const requireVariable = "GATEHOUSE_REQUIRE"

// stateDir is private to the lab: the lab mounts a file system of its own at /run.
const stateDir = "/run/gatehouse"

// ErrNoLab says that this machine does not let us make the namespaces of a lab. Its message says what is missing.
var ErrNoLab = errors.New("cannot make a lab here")

// Main plays the part of a helper if this process was started to be one (the first process of a pod), and then never returns. Call it
// first in main, or in TestMain where Lab is not called, on the goroutine that runs main.
func Main() {
	if len(os.Args) == 2 && os.Args[0] == podInitName {
		podInit()
	}
	if InLab() {
		// /proc/self is the first thread's: no goroutine that leaves for another network may take it along.
		runtime.LockOSThread()
	}
}

// InLab says whether this process runs in a lab.
func InLab() bool { return os.Getenv(labVariable) != "" }

// Lab is for TestMain: it runs the tests in a lab and returns the status to exit with. Outside, it runs the preparations, which may
// use the network to build things, and starts the test binary anew inside; inside it runs the tests.
//
//	func TestMain(m *testing.M) { os.Exit(cluster.Lab(m, prepare)) }
//
// Where the machine permits no lab, it prints why and returns 0, or 1 if GATEHOUSE_REQUIRE contains "cluster".
func Lab(m interface{ Run() int }, prepare ...func(context.Context) error) int {
	Main()
	if InLab() {
		return m.Run()
	}
	ctx := context.Background()
	if err := CanLab(); err != nil {
		if strings.Contains(os.Getenv(requireVariable), "cluster") {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			return 1
		}
		fmt.Println("SKIP: all tests with a cluster:", err)
		return 0
	}
	prepare = append([]func(context.Context) error{prepareControlPlane}, prepare...)
	for _, p := range prepare {
		if err := p(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL: preparing the lab:", err)
			return 1
		}
	}
	status, err := Enter(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		return 1
	}
	return status
}

// CanLab returns nil if this machine permits a lab, else an error that wraps ErrNoLab and says what is missing.
func CanLab() error {
	cmd := exec.Command("/proc/self/exe", labCheckArg)
	cmd.Args[0] = podInitName
	cmd.SysProcAttr = labAttributes()
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	why := err.Error()
	if text := strings.TrimSpace(string(out)); text != "" {
		why = text
	}
	hint := "run as root with CAP_SYS_ADMIN and CAP_NET_ADMIN"
	if os.Geteuid() != 0 {
		hint = "run as root, or allow unprivileged user namespaces (sysctls user.max_user_namespaces, " +
			"kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
	}
	return fmt.Errorf("%w: %s; %s", ErrNoLab, why, hint)
}

// Enter runs this program once more with args, inside a new lab, until it ends, and returns its exit status. Signals that end a
// program are handed on to it. If this process dies, so does all of the lab. The files are open in the lab as 3, 4 and so on: a socket
// among them stays in the network that it was made in.
func Enter(ctx context.Context, args []string, files ...*os.File) (int, error) {
	// The kernel sends the parent-death signal when the thread that started the child ends, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), labVariable+"=outer")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = files
	cmd.SysProcAttr = labAttributes()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("starting the lab: %w", err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s)
			case <-done:
				return
			}
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode(), nil
	default:
		return 0, fmt.Errorf("running in the lab: %w", err)
	}
}

// labAttributes makes the lab's namespaces. The process namespace is what ends everything with the first process.
func labAttributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if uid := os.Geteuid(); uid != 0 {
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return a
}

// furnishLab gives the lab its own /proc and /run and its own loopback. It is done once, by whoever starts a cluster first.
func furnishLab() error {
	if !InLab() {
		return errors.New("not in a lab: call cluster.Lab from TestMain, or cluster.Enter from main")
	}
	if os.Getpid() != 1 {
		return errors.New("not the first process of the lab: only the program that cluster.Enter started can start a cluster")
	}
	if _, err := os.Stat(stateDir); err == nil && os.Getenv(labVariable) == "furnished" {
		return nil
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding the loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("setting the loopback up: %w", err)
	}
	return os.Setenv(labVariable, "furnished")
}

// checkLab runs in namespaces of its own and tries what a lab needs.
func checkLab() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mounting a tmpfs: %w", err)
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "check"}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("making a bridge: %w", err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "check0"}, PeerName: "check1"}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("making a veth pair: %w", err)
	}
	return nil
}
