package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// setProblem says why containers cannot be made yet.
func (p *pod) setProblem(reason string, err error) {
	p.mu.Lock()
	p.problem = corev1.ContainerStateWaiting{Reason: reason, Message: err.Error()}
	p.mu.Unlock()
	poke(p.changed)
}

// keepStatus writes the status whenever it has changed, until ctx ends.
func (p *pod) keepStatus(ctx context.Context) {
	for {
		p.flush(ctx)
		select {
		case <-p.changed:
		case <-ctx.Done():
			return
		}
	}
}

// flush writes the status if it differs from what was last written, and tries until it can or ctx ends.
func (p *pod) flush(ctx context.Context) {
	p.flushing.Lock()
	defer p.flushing.Unlock()
	for ctx.Err() == nil {
		status := p.status()
		raw, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.uid}, "status": status})
		if err != nil {
			p.a.log.Error("cannot encode a pod's status", "err", err)
			return
		}
		if string(raw) == p.sent {
			return
		}
		_, err = p.a.c.node.CoreV1().Pods(p.namespace).Patch(ctx, p.name, types.StrategicMergePatchType, raw, metav1.PatchOptions{}, "status")
		switch {
		case err == nil:
			p.sent = string(raw)
			return
		case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
			return // gone, or another pod of the same name
		case ctx.Err() == nil:
			p.a.log.Debug("cannot write a pod's status", "pod", p.namespace+"/"+p.name, "err", err)
			pause(ctx, 200*time.Millisecond)
		}
	}
}

// status is the pod's status by what its containers do.
func (p *pod) status() corev1.PodStatus {
	o := p.latest.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := corev1.PodStatus{StartTime: &p.started, HostIP: p.node.addrs[0].String(), QOSClass: o.Status.QOSClass}
	for _, a := range p.node.addrs {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: a.String()})
	}
	for _, a := range p.addrs {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: a.String()})
	}
	if len(p.addrs) > 0 {
		s.PodIP = p.addrs[0].String()
	}
	allReady := true
	for _, c := range p.containers {
		cs := c.status(p.problem)
		if c.init || c.sidecar {
			s.InitContainerStatuses = append(s.InitContainerStatuses, cs)
		} else {
			s.ContainerStatuses = append(s.ContainerStatuses, cs)
		}
		allReady = allReady && (c.init || cs.Ready)
	}
	s.Phase = p.phase(o)
	if s.Phase == corev1.PodSucceeded || s.Phase == corev1.PodFailed {
		allReady = false
	}
	ready := allReady
	for _, g := range o.Spec.ReadinessGates {
		ready = ready && hasCondition(o, g.ConditionType)
	}
	s.Conditions = []corev1.PodCondition{
		p.condition(corev1.PodReadyToStartContainers, len(p.addrs) > 0, ""),
		p.condition(corev1.PodInitialized, p.initDone, "ContainersNotInitialized"),
		p.condition(corev1.ContainersReady, allReady, "ContainersNotReady"),
		p.condition(corev1.PodReady, ready, "ContainersNotReady"),
		p.condition(corev1.PodScheduled, true, ""),
	}
	return s
}

func hasCondition(o *corev1.Pod, t corev1.PodConditionType) bool {
	for _, c := range o.Status.Conditions {
		if c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// condition keeps the time at which a condition last changed.
func (p *pod) condition(t corev1.PodConditionType, value bool, reason string) corev1.PodCondition {
	c := corev1.PodCondition{Type: t, Status: corev1.ConditionTrue}
	if !value {
		c.Status, c.Reason = corev1.ConditionFalse, reason
	}
	if old, ok := p.conditions[t]; ok && old.Status == c.Status {
		return old
	}
	c.LastTransitionTime = metav1.Now()
	p.conditions[t] = c
	return c
}

// phase is called with p.mu held.
func (p *pod) phase(o *corev1.Pod) corev1.PodPhase {
	var waiting, over, failed, total int
	for _, c := range p.containers {
		if c.init || c.sidecar {
			t := c.state.Terminated
			if c.init && c.over && t != nil && t.ExitCode != 0 && (o.Spec.RestartPolicy == corev1.RestartPolicyNever || p.isEnding()) {
				return corev1.PodFailed
			}
			continue
		}
		total++
		switch {
		case c.over && c.state.Terminated != nil:
			over++
			if c.state.Terminated.ExitCode != 0 {
				failed++
			}
		case c.state.Waiting != nil && c.last.Terminated == nil:
			waiting++
		}
	}
	switch {
	case over == total && failed > 0:
		return corev1.PodFailed
	case over == total:
		return corev1.PodSucceeded
	case waiting > 0:
		return corev1.PodPending
	default:
		return corev1.PodRunning
	}
}

// status is the container's; p.mu is held.
func (c *container) status(problem corev1.ContainerStateWaiting) corev1.ContainerStatus {
	s := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: "gatehouse://" + c.spec.Image, ContainerID: c.id,
		State: c.state, LastTerminationState: c.last, RestartCount: c.restarts, Ready: c.ready, Started: ptr.To(c.startedUp),
	}
	if c.init {
		s.Ready = c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
	}
	if w := c.state.Waiting; w != nil && w.Message == "" && problem.Message != "" && c.id == "" {
		s.State.Waiting = &problem
	}
	return s
}

// Logs is what the containers of a pod have written so far, in their last run; with several containers, one after the other.
func (c *Cluster) Logs(namespace, name string) (string, error) {
	p, err := c.agent.find(namespace, name)
	if err != nil {
		return "", err
	}
	var text string
	for _, x := range p.containers {
		p.mu.Lock()
		logs := x.logs
		p.mu.Unlock()
		if logs != nil {
			text += logs.tail(mostLog)
		}
	}
	return text, nil
}

// KillPod kills the containers of a pod without warning, as when they crash. They start again by the pod's restart policy.
func (c *Cluster) KillPod(namespace, name string) error {
	p, err := c.agent.find(namespace, name)
	if err != nil {
		return err
	}
	for _, x := range p.containers {
		if process, exited := x.running(); process != nil {
			if err := process.Kill(); err != nil {
				return fmt.Errorf("killing %s/%s: %w", namespace, name, err)
			}
			<-exited
		}
	}
	return nil
}
