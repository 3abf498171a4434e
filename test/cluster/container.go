package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
)

// container is one container of a pod over all its starts.
type container struct {
	p       *pod
	spec    *corev1.Container
	init    bool // must complete before the next one starts
	sidecar bool // starts among the init containers and runs on

	retired   chan struct{} // closed when it must not start again
	retire1   sync.Once
	lifecycle sync.Mutex // held while a process starts, so that nobody ends the pod in between
	up        chan struct{}
	upOnce    sync.Once

	// Guarded by p.mu.
	state, last corev1.ContainerState
	id          string
	restarts    int32
	over        bool // it will not start again
	ready       bool
	startedUp   bool // the startup probe has passed
	process     *os.Process
	exited      chan struct{}
	logs, old   *logBuffer
}

func newContainer(p *pod, spec *corev1.Container, init, sidecar bool) *container {
	c := &container{p: p, spec: spec, init: init, sidecar: sidecar, retired: make(chan struct{}), up: make(chan struct{})}
	c.state.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	if len(p.latest.Load().Spec.InitContainers) > 0 && !init && !sidecar {
		c.state.Waiting.Reason = "PodInitializing"
	}
	return c
}

// loop starts the container, and again when it ends, as the pod's restart policy says. It returns when it has ended for good: true if
// the last run was a success.
func (c *container) loop() bool {
	defer c.finish()
	wait := c.p.a.backoff
	for {
		exited, err := c.start()
		if err != nil {
			c.waiting(err)
		} else if exited == nil {
			return false // the pod is ending
		} else {
			began := time.Now()
			<-exited
			code := c.exitCode()
			if c.p.isEnding() || c.isRetired() || !c.again(code) {
				return code == 0
			}
			if time.Since(began) > 10*time.Second {
				wait = c.p.a.backoff
			}
			c.crashed(wait)
		}
		poke(c.p.changed)
		select {
		case <-time.After(wait):
		case <-c.p.ending:
			return false
		case <-c.p.ctx.Done():
			return false
		case <-c.retired:
			return false
		}
		wait = min(2*wait, 20*c.p.a.backoff)
	}
}

// again says whether a container that ended with this code is started again.
func (c *container) again(code int32) bool {
	if c.sidecar {
		return true
	}
	switch c.p.latest.Load().Spec.RestartPolicy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	default:
		return !c.init || code != 0
	}
}

func (c *container) isRetired() bool {
	select {
	case <-c.retired:
		return true
	default:
		return false
	}
}

// waiting says why the container could not be started.
func (c *container) waiting(err error) {
	reason := "CreateContainerError"
	if r, ok := errors.AsType[*startError](err); ok {
		reason = r.reason
	}
	c.p.mu.Lock()
	c.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: err.Error()}}
	c.p.mu.Unlock()
	c.p.event("Failed", fmt.Sprintf("container %s: %s: %s", c.spec.Name, reason, err))
}

// crashed moves an ended run to where the status shows the one before.
func (c *container) crashed(wait time.Duration) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.last = c.state
	c.restarts++
	c.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
		Reason: "CrashLoopBackOff", Message: fmt.Sprintf("back-off %s restarting container %s", wait, c.spec.Name),
	}}
}

// finish says that the container will not start again. One that waited to do so shows how its last run ended.
func (c *container) finish() {
	c.p.mu.Lock()
	c.over = true
	if c.state.Waiting != nil && c.last.Terminated != nil {
		c.state = c.last
	}
	c.p.mu.Unlock()
	poke(c.p.changed)
}

// ranUp says that the startup probe has passed, or that there is none.
func (c *container) ranUp() {
	c.p.mu.Lock()
	c.startedUp = true
	c.ready = c.ready || c.spec.ReadinessProbe == nil
	c.p.mu.Unlock()
	c.upOnce.Do(func() { close(c.up) })
	poke(c.p.changed)
}

// awaitStarted waits until a sidecar has started up. False: the pod is ending.
func (c *container) awaitStarted() bool {
	select {
	case <-c.up:
		return true
	case <-c.p.ending:
	case <-c.p.ctx.Done():
	}
	return false
}

func (c *container) setReady(ready bool) {
	c.p.mu.Lock()
	same := c.ready == ready
	c.ready = ready
	c.p.mu.Unlock()
	if !same {
		poke(c.p.changed)
	}
}

// running is the process that runs now and the channel that is closed when it has ended; nil if none does.
func (c *container) running() (*os.Process, chan struct{}) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	return c.process, c.exited
}

func (c *container) exitCode() int32 {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if t := c.state.Terminated; t != nil {
		return t.ExitCode
	}
	return 0
}

// begun records that the program runs.
func (c *container) begun(process *os.Process, logs *logBuffer) chan struct{} {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.id = "gatehouse://" + string(uuid.NewUUID())
	c.old, c.logs = c.logs, logs
	c.process, c.exited = process, make(chan struct{})
	c.ready, c.startedUp = false, false
	c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}
	return c.exited
}

// ended records how the program ended.
func (c *container) ended(state *os.ProcessState, logs *logBuffer) {
	t := &corev1.ContainerStateTerminated{ExitCode: int32(state.ExitCode()), Reason: "Completed", FinishedAt: metav1.Now()}
	if status, ok := waitStatus(state); ok && status.Signaled() {
		t.Signal = int32(status.Signal())
		t.ExitCode = 128 + t.Signal
	}
	if t.ExitCode != 0 {
		t.Reason = "Error"
	}
	t.Message = c.terminationMessage(logs, t.ExitCode)
	c.p.mu.Lock()
	if r := c.state.Running; r != nil {
		t.StartedAt = r.StartedAt
	}
	t.ContainerID = c.id
	c.state = corev1.ContainerState{Terminated: t}
	c.process, c.ready, c.startedUp = nil, false, false
	close(c.exited)
	c.p.mu.Unlock()
}

// terminationMessage is what the program left in the file for it, or the end of its logs if the pod wants that.
func (c *container) terminationMessage(logs *logBuffer, code int32) string {
	raw, err := os.ReadFile(filepath.Join(c.dir(), "termination-log"))
	if err == nil && len(raw) > 0 {
		return string(raw[:min(len(raw), 4096)])
	}
	if code != 0 && c.spec.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
		return logs.tail(2048)
	}
	return ""
}

func (c *container) dir() string { return filepath.Join(c.p.dir, "containers", c.spec.Name) }

// retire ends the container for good, with the pod's grace.
func (c *container) retire() {
	c.retire1.Do(func() { close(c.retired) })
	c.terminate(time.Now())
}

// terminate ends the container, if it runs: the hook, SIGTERM, and when the pod's grace since begin is over SIGKILL.
func (c *container) terminate(begin time.Time) {
	c.lifecycle.Lock()
	process, exited := c.running()
	c.lifecycle.Unlock()
	if process == nil {
		return
	}
	left := func() time.Duration { return time.Until(begin.Add(c.p.grace())) }
	if c.spec.Lifecycle != nil && c.spec.Lifecycle.PreStop != nil {
		c.preStop(c.spec.Lifecycle.PreStop, exited, left)
	}
	c.stop(process, exited, left)
}

// stop sends SIGTERM and, when no time is left, SIGKILL.
func (c *container) stop(process *os.Process, exited chan struct{}, left func() time.Duration) {
	// Both fail only if the process has ended already.
	if left() > 0 {
		_ = process.Signal(stopSignal)
	}
	if !waitFor(exited, left) {
		_ = process.Kill()
	}
	<-exited
}

// waitFor waits for a channel to close as long as left is positive. What is left can shrink meanwhile.
func waitFor(done <-chan struct{}, left func() time.Duration) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for left() > 0 {
		select {
		case <-done:
			return true
		case <-tick.C:
		}
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func (c *container) preStop(h *corev1.LifecycleHandler, exited chan struct{}, left func() time.Duration) {
	switch {
	case h.Sleep != nil:
		until := time.Now().Add(time.Duration(h.Sleep.Seconds) * time.Second)
		waitFor(exited, func() time.Duration { return min(left(), time.Until(until)) })
	case h.HTTPGet != nil:
		ctx, cancel := context.WithTimeout(c.p.ctx, max(left(), time.Millisecond))
		defer cancel()
		if err := c.httpGet(ctx, h.HTTPGet); err != nil {
			c.p.event("FailedPreStopHook", err.Error())
		}
	default:
		c.p.event("FailedPreStopHook", "the test cluster has no exec hooks; use sleep or httpGet")
	}
}
