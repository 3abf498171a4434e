package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

const stopSignal = syscall.SIGTERM

// startError is a failure to start with the reason word that users see.
type startError struct{ reason, message string }

func (e *startError) Error() string { return e.message }

func waitStatus(s *os.ProcessState) (syscall.WaitStatus, bool) {
	w, ok := s.Sys().(syscall.WaitStatus)
	return w, ok
}

// start starts the container's program and its probes. It returns a channel that is closed when the program has ended and the state
// says so; nil without an error if the pod is ending.
func (c *container) start() (chan struct{}, error) {
	c.lifecycle.Lock()
	defer c.lifecycle.Unlock()
	if c.p.isEnding() || c.isRetired() {
		return nil, nil
	}
	spec, err := c.initSpec()
	if err != nil {
		return nil, err
	}
	logs := newLogBuffer()
	cmd, err := c.exec(spec, logs)
	if err != nil {
		return nil, err
	}
	exited := c.begun(cmd.Process, logs)
	c.startProbes(exited)
	go func() {
		_ = cmd.Wait() // the state says it all
		logs.wait()
		c.ended(cmd.ProcessState, logs)
	}()
	poke(c.p.changed)
	return exited, nil
}

// exec starts the first process of the container and returns when it has become the program, or could not.
func (c *container) exec(spec *initSpec, logs *logBuffer) (*exec.Cmd, error) {
	raw, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(c.dir(), "spec.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return nil, err
	}
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	failure, failed, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer failure.Close()
	out, err := logs.pipe()
	if err != nil {
		failed.Close()
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", "run")
	cmd.Args[0] = podInitName
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{in, failed}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	if spec.MappedToSelf {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: spec.UID, HostID: 0, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: spec.GID, HostID: 0, Size: 1}}
		// A user who is not root keeps over the exec only what is ambient; podInit needs it all, and drops it.
		for n := 0; n <= lastCap(); n++ {
			cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, uintptr(n))
		}
	}
	err = c.p.space.start(cmd)
	failed.Close()
	out.Close()
	if err != nil {
		return nil, err
	}
	message, _ := io.ReadAll(failure)
	if len(message) > 0 {
		_ = cmd.Wait()
		return nil, &startError{"RunContainerError", string(message)}
	}
	return cmd, nil
}

// imageName is a reference without its registry, tag and digest: a program stands for it wherever it would come from.
func imageName(ref string) string {
	name, _, _ := strings.Cut(ref, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	if host, rest, ok := strings.Cut(name, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		name = rest
	}
	return name
}

// findImage returns the program that stands for a reference.
func (a *agent) findImage(ref string) (*Image, error) {
	images := a.c.options.Images
	i := slices.IndexFunc(images, func(m Image) bool { return imageName(m.Name) == imageName(ref) })
	if i < 0 {
		var have []string
		for _, m := range images {
			have = append(have, m.Name)
		}
		return nil, &startError{"ErrImagePull",
			fmt.Sprintf("image %q stands for no program; there are: %s", ref, strings.Join(have, ", "))}
	}
	return &images[i], nil
}

// initSpec is what the first process of the container has to know.
func (c *container) initSpec() (*initSpec, error) {
	o := c.p.latest.Load()
	image, err := c.p.a.findImage(c.spec.Image)
	if err != nil {
		return nil, err
	}
	s := &initSpec{
		Root:        filepath.Join(c.dir(), "root"),
		Hostname:    c.p.hostname(),
		Dir:         c.spec.WorkingDir,
		HostNetwork: o.Spec.HostNetwork,
	}
	if err := os.MkdirAll(s.Root, 0o755); err != nil {
		return nil, err
	}
	if err := c.setUser(s, o, image); err != nil {
		return nil, err
	}
	env, err := c.environment(o, image)
	if err != nil {
		return nil, &startError{"CreateContainerConfigError", err.Error()}
	}
	entrypoint := image.Entrypoint
	if entrypoint == "" {
		entrypoint = "/" + filepath.Base(image.Program)
	}
	s.Argv = c.argv(entrypoint, image, env)
	for _, e := range env {
		s.Env = append(s.Env, e.name+"="+e.value)
	}
	s.Files = c.p.etcFiles(s)
	return s, c.addMounts(s, entrypoint, image)
}

func (c *container) argv(entrypoint string, image *Image, env []variable) []string {
	command, args := c.spec.Command, c.spec.Args
	if len(command) == 0 {
		command = []string{entrypoint}
		if len(args) == 0 {
			args = image.Args
		}
	}
	var argv []string
	for _, a := range slices.Concat(command, args) {
		argv = append(argv, expand(a, env))
	}
	return argv
}

// setUser settles the identity of the container's processes from its security context, that of the pod, and the image.
func (c *container) setUser(s *initSpec, o *corev1.Pod, image *Image) error {
	ps, cs := ptr.Deref(o.Spec.SecurityContext, corev1.PodSecurityContext{}), ptr.Deref(c.spec.SecurityContext, corev1.SecurityContext{})
	uid := ptr.Deref(firstSet(cs.RunAsUser, ps.RunAsUser), image.User)
	gid := int64(0)
	if uid == image.User {
		gid = image.User // as the image's /etc/passwd would say
	}
	gid = ptr.Deref(firstSet(cs.RunAsGroup, ps.RunAsGroup), gid)
	if ptr.Deref(firstSet(cs.RunAsNonRoot, ps.RunAsNonRoot), false) && uid == 0 {
		return &startError{"CreateContainerConfigError", "container has runAsNonRoot and image will run as root"}
	}
	s.UID, s.GID = int(uid), int(gid)
	s.OneUser = oneUser()
	s.MappedToSelf = s.OneUser && uid != 0
	s.Groups = []int{s.GID}
	if ps.FSGroup != nil {
		s.Groups = append(s.Groups, int(*ps.FSGroup))
	}
	for _, g := range ps.SupplementalGroups {
		s.Groups = append(s.Groups, int(g))
	}
	s.ReadOnly = ptr.Deref(cs.ReadOnlyRootFilesystem, false)
	s.NoNewPrivs = !ptr.Deref(cs.AllowPrivilegeEscalation, true)

	add, drop := []string(nil), []string(nil)
	if cs.Capabilities != nil {
		for _, x := range cs.Capabilities.Add {
			add = append(add, string(x))
		}
		for _, x := range cs.Capabilities.Drop {
			drop = append(drop, string(x))
		}
	}
	if ptr.Deref(cs.Privileged, false) {
		for name := range capabilities {
			add = append(add, name)
		}
	}
	var err error
	if s.Caps, err = containerCaps(add, drop); err != nil {
		return &startError{"CreateContainerConfigError", err.Error()}
	}
	if uid != 0 { // also without new privileges: a runtime has the process hold what its container adds, so the file gives nothing new
		for _, name := range image.FileCaps {
			if n, ok := capabilities[name]; ok && slices.Contains(s.Caps, n) {
				s.Ambient = append(s.Ambient, n)
			}
		}
		if s.OneUser && len(s.Ambient) > 0 {
			s.Ambient = nil
			c.p.event("NoCapabilities", "the lab was not made by root: container "+c.spec.Name+" does not get the capabilities of its image's file")
		}
	}
	return nil
}

func firstSet[T any](list ...*T) *T {
	for _, p := range list {
		if p != nil {
			return p
		}
	}
	return nil
}

// oneUser says whether the lab knows no user but its own root, as is so where the user who made it is not root.
func oneUser() bool {
	raw, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(raw))
	return err == nil && len(f) == 3 && f[2] == "1"
}

func (p *pod) hostname() string {
	o := p.latest.Load()
	switch {
	case o.Spec.HostNetwork:
		return p.node.name
	case o.Spec.Hostname != "":
		return o.Spec.Hostname
	default:
		return p.name
	}
}

// etcFiles are the files that a kubelet and an image without a shell have.
func (p *pod) etcFiles(s *initSpec) map[string]string {
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	for _, a := range p.addrs {
		hosts += a.String() + "\t" + s.Hostname + "\n"
	}
	for _, alias := range p.latest.Load().Spec.HostAliases {
		hosts += alias.IP + "\t" + strings.Join(alias.Hostnames, "\t") + "\n"
	}
	return map[string]string{
		"/etc/hosts":    hosts,
		"/etc/hostname": s.Hostname + "\n",
		"/etc/resolv.conf": fmt.Sprintf("search %s.svc.cluster.local svc.cluster.local cluster.local\nnameserver %s\noptions ndots:5\n",
			p.namespace, nth(serviceNet4, dnsHost)),
		"/etc/passwd":        "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n",
		"/etc/group":         "root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n",
		"/etc/nsswitch.conf": "hosts: files dns\n",
		// Nothing outside of the lab can be reached, so no authority is trusted.
		"/etc/ssl/certs/ca-certificates.crt": "",
	}
}

// addMounts adds the program, the pod's volumes and the file for last words.
func (c *container) addMounts(s *initSpec, entrypoint string, image *Image) error {
	s.Mounts = append(s.Mounts, initMount{Source: image.Program, Target: entrypoint, ReadOnly: true})
	last := filepath.Join(c.dir(), "termination-log")
	if err := os.WriteFile(last, nil, 0o666); err != nil {
		return err
	}
	if err := os.Chmod(last, 0o666); err != nil {
		return err
	}
	s.Mounts = append(s.Mounts, initMount{Source: last, Target: c.spec.TerminationMessagePath})
	for _, m := range c.spec.VolumeMounts {
		v := c.p.volumes[m.Name]
		if v == nil {
			return &startError{"CreateContainerConfigError", fmt.Sprintf("no volume %q", m.Name)}
		}
		source := filepath.Join(v.dir, path.Clean("/"+m.SubPath))
		if _, err := os.Stat(source); os.IsNotExist(err) && v.writable {
			if err := os.MkdirAll(source, 0o777); err != nil {
				return err
			}
		}
		s.Mounts = append(s.Mounts, initMount{Source: source, Target: m.MountPath, ReadOnly: m.ReadOnly || !v.writable})
	}
	return nil
}
