package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// podInitName is the name under which this program starts itself as the first process of a container.
const podInitName = "gatehouse-pod-init"

const labCheckArg = "check-lab"

// initSpec tells the first process of a container what to make of itself. Paths are those of the lab, but for those in mounts.Target.
type initSpec struct {
	Root     string            `json:"root"` // an empty folder to build the root in
	Hostname string            `json:"hostname"`
	Files    map[string]string `json:"files"` // path in the root → content
	Mounts   []initMount       `json:"mounts"`
	ReadOnly bool              `json:"readOnly"`

	Dir  string   `json:"dir"`
	Argv []string `json:"argv"`
	Env  []string `json:"env"`

	UID, GID     int
	Groups       []int
	Caps         []int `json:"caps"`    // what the process may ever hold
	Ambient      []int `json:"ambient"` // what it holds although it is not root
	NoNewPrivs   bool  `json:"noNewPrivs"`
	HostNetwork  bool  `json:"hostNetwork"`
	OneUser      bool  `json:"oneUser"`      // the lab knows its root only, and no groups
	MappedToSelf bool  `json:"mappedToSelf"` // in a user namespace that maps this one user id, so there is none to change to
}

type initMount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly"`
}

// podInit reads its spec from file 3, makes the container's root, drops what the pod may not have, and becomes the program. What goes
// wrong is written to file 4, which is closed without a word when the program runs.
func podInit() {
	runtime.LockOSThread()
	if os.Args[1] == labCheckArg {
		if err := checkLab(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	failed := os.NewFile(4, "failed")
	unix.CloseOnExec(4)
	err := func() error {
		var s initSpec
		raw, err := io.ReadAll(os.NewFile(3, "spec"))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		unix.Close(3)
		return s.become()
	}()
	fmt.Fprint(failed, err)
	os.Exit(128)
}

func (s *initSpec) become() error {
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	if err := s.buildRoot(); err != nil {
		return err
	}
	if err := s.enterRoot(); err != nil {
		return err
	}
	program, err := s.lookup()
	if err != nil {
		return err
	}
	unix.Umask(0o022)
	if err := s.dropPrivileges(); err != nil {
		return err
	}
	if err := unix.Exec(program, s.Argv, s.Env); err != nil {
		return fmt.Errorf("exec %q: %w", program, err)
	}
	return nil
}

// buildRoot makes a root file system in s.Root as small as that of an image with nothing but a static program.
func (s *initSpec) buildRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", s.Root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mounting the root: %w", err)
	}
	for dir, mode := range map[string]os.FileMode{
		"proc": 0o555, "dev": 0o755, "etc": 0o755, "tmp": 0o777 | os.ModeSticky, "var/run": 0o755, "root": 0o700, "old": 0o700,
	} {
		if err := os.MkdirAll(filepath.Join(s.Root, dir), 0o755); err != nil {
			return err
		}
		if err := os.Chmod(filepath.Join(s.Root, dir), mode); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", filepath.Join(s.Root, "proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	for _, d := range []string{"null", "zero", "full", "random", "urandom"} {
		if err := bind(initMount{Source: "/dev/" + d, Target: "/dev/" + d}, s.Root); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(target, filepath.Join(s.Root, "dev", name)); err != nil {
			return err
		}
	}
	for path, content := range s.Files {
		path = filepath.Join(s.Root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	// Outer mounts first, whatever their order in the pod.
	slices.SortStableFunc(s.Mounts, func(a, b initMount) int {
		return strings.Count(filepath.Clean(a.Target), "/") - strings.Count(filepath.Clean(b.Target), "/")
	})
	for _, m := range s.Mounts {
		if err := bind(m, s.Root); err != nil {
			return err
		}
	}
	return nil
}

// bind makes m.Source, a file or folder, appear at m.Target under root.
func bind(m initMount, root string) error {
	target := filepath.Join(root, m.Target)
	info, err := os.Stat(m.Source)
	if err != nil {
		return fmt.Errorf("mounting %s: %w", m.Target, err)
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		var f *os.File
		if f, err = os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644); err == nil {
			f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("mounting %s: %w", m.Target, err)
	}
	if err := unix.Mount(m.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", m.Target, err)
	}
	if m.ReadOnly {
		// A user namespace may not clear the flags that the mount had, so they are named again.
		var st unix.Statfs_t
		if err := unix.Statfs(target, &st); err != nil {
			return fmt.Errorf("mounting %s: %w", m.Target, err)
		}
		const kept = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME
		flags := uintptr(st.Flags)&kept | unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY
		if err := unix.Mount("", target, "", flags, ""); err != nil {
			return fmt.Errorf("making %s read-only: %w", m.Target, err)
		}
	}
	return nil
}

func (s *initSpec) enterRoot() error {
	if err := unix.PivotRoot(s.Root, filepath.Join(s.Root, "old")); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/old", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the old root: %w", err)
	}
	if err := os.Remove("/old"); err != nil {
		return err
	}
	dir := s.Dir
	if dir == "" {
		dir = "/"
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the working directory: %w", err)
	}
	if s.ReadOnly {
		if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("making the root read-only: %w", err)
		}
	}
	return unix.Chdir(dir)
}

// lookup finds the program as a shell would, with the PATH of the container.
func (s *initSpec) lookup() (string, error) {
	if len(s.Argv) == 0 {
		return "", errors.New("no command: neither the pod nor the image names one")
	}
	name := s.Argv[0]
	if strings.Contains(name, "/") {
		if _, err := os.Stat(name); err != nil {
			return "", fmt.Errorf("exec: %w", err)
		}
		return name, nil
	}
	for _, e := range s.Env {
		if list, ok := strings.CutPrefix(e, "PATH="); ok {
			for dir := range strings.SplitSeq(list, ":") {
				if p := filepath.Join(dir, name); unix.Access(p, unix.X_OK) == nil {
					return p, nil
				}
			}
		}
	}
	return "", fmt.Errorf("exec: %q: executable file not found in $PATH", name)
}

// dropPrivileges becomes the container's user on this thread, which is the one that execs. It does what a container runtime does: a
// root process holds the capabilities of the container, another holds none, whatever the container adds, unless they are ambient.
func (s *initSpec) dropPrivileges() error {
	for c := 0; c <= lastCap(); c++ {
		if slices.Contains(s.Caps, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	if len(s.Ambient) > 0 {
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if !s.MappedToSelf {
		if err := s.setIDs(); err != nil {
			return err
		}
	}
	held := s.Caps
	if s.UID != 0 {
		held = s.Ambient
	}
	if err := setCaps(held, s.Ambient); err != nil {
		return err
	}
	if s.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("setting no_new_privs: %w", err)
		}
	}
	return nil
}

// setIDs makes raw calls: those of package syscall change all threads, and the others are about to vanish.
func (s *initSpec) setIDs() error {
	list := make([]uint32, 0, len(s.Groups))
	for _, g := range s.Groups {
		list = append(list, uint32(g))
	}
	if !s.OneUser {
		if err := rawSetgroups(list); err != nil {
			return fmt.Errorf("setting groups: %w", err)
		}
	}
	gid, uid := uintptr(s.GID), uintptr(s.UID)
	if _, _, e := syscall.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); e != 0 {
		return fmt.Errorf("becoming group %d: %w", gid, e)
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); e != 0 {
		return fmt.Errorf("becoming user %d: %w", uid, e)
	}
	return nil
}

func setCaps(held, ambient []int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for _, c := range held {
		data[c/32].Permitted |= 1 << (c % 32)
		data[c/32].Effective |= 1 << (c % 32)
	}
	for _, c := range ambient {
		data[c/32].Inheritable |= 1 << (c % 32)
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("setting capabilities: %w", err)
	}
	for _, c := range ambient {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("raising capability %d: %w", c, err)
		}
	}
	return nil
}
