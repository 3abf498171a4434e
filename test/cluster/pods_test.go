package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// createPod creates a pod from its spec as YAML. The name is p.
func createPod(ctx context.Context, t *testing.T, c *Cluster, ns, spec string) {
	t.Helper()
	o := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: ns, Labels: map[string]string{"app": "p"}}}
	if err := yaml.UnmarshalStrict([]byte(spec), &o.Spec); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().CoreV1().Pods(ns).Create(ctx, o, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// awaitPod waits until the pod p is as done wants.
func awaitPod(ctx context.Context, t *testing.T, c *Cluster, ns, what string, done func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var o *corev1.Pod
	err := c.Wait(ctx, what, func(ctx context.Context) (err error) {
		if o, err = c.Client().CoreV1().Pods(ns).Get(ctx, "p", metav1.GetOptions{}); err == nil && !done(o) {
			err = fmt.Errorf("it is %s: %+v", o.Status.Phase, o.Status.ContainerStatuses)
		}
		return err
	})
	if err != nil {
		logs, _ := c.Logs(ns, "p")
		t.Fatalf("%v\nlogs:\n%s", err, logs)
	}
	return o
}

func isReady(o *corev1.Pod) bool { return hasCondition(o, corev1.PodReady) }

// probePod runs the probe program and returns the URL at which it answers.
func probePod(ctx context.Context, t *testing.T, c *Cluster, ns, spec string) string {
	t.Helper()
	createPod(ctx, t, c, ns, spec)
	o := awaitPod(ctx, t, c, ns, "a ready pod", isReady)
	return "http://" + o.Status.PodIP + ":8080"
}

func wantGet(ctx context.Context, t *testing.T, url, want string) {
	t.Helper()
	if got, err := get(ctx, url); err != nil || !strings.Contains(got, want) {
		t.Errorf("GET %s = %q, %v, want %q", url, got, err, want)
	}
}

const readyAt8080 = `readinessProbe: {httpGet: {port: 8080, path: /id}, periodSeconds: 1}`

func TestLogsThroughAPI(t *testing.T) {
	ctx, c, ns := use(t)
	url := probePod(ctx, t, c, ns, `containers: [{name: c, image: "probe:1", `+readyAt8080+`}]`)
	wantGet(ctx, t, url+"/say/first", "")
	wantGet(ctx, t, url+"/say/second", "")
	pods := c.Client().CoreV1().Pods(ns)
	raw, err := pods.GetLogs("p", &corev1.PodLogOptions{TailLines: ptr.To(int64(1))}).DoRaw(ctx)
	if err != nil || string(raw) != "second\n" {
		t.Errorf("the last line of the logs: %q, %v, want second", raw, err)
	}
	if logs, err := c.Logs(ns, "p"); err != nil || !strings.HasSuffix(logs, "first\nsecond\n") {
		t.Errorf("Logs: %q, %v", logs, err)
	}

	stream, err := pods.GetLogs("p", &corev1.PodLogOptions{Follow: true, TailLines: ptr.To(int64(0))}).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	wantGet(ctx, t, url+"/say/third", "")
	if line, err := bufio.NewReader(stream).ReadString('\n'); err != nil || line != "third\n" {
		t.Errorf("following the logs: %q, %v, want third", line, err)
	}

	if err := c.KillPod(ns, "p"); err != nil {
		t.Fatal(err)
	}
	o := awaitPod(ctx, t, c, ns, "a second start", func(o *corev1.Pod) bool {
		return isReady(o) && o.Status.ContainerStatuses[0].RestartCount == 1
	})
	if last := o.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 137 {
		t.Errorf("last state after a kill: %+v, want exit code 137", last)
	}
	raw, err = pods.GetLogs("p", &corev1.PodLogOptions{Previous: true}).DoRaw(ctx)
	if err != nil || !strings.Contains(string(raw), "third") {
		t.Errorf("logs of the run before: %q, %v", raw, err)
	}
}

func TestVolumesFollowTheirObjects(t *testing.T) {
	ctx, c, ns := use(t)
	secrets := c.Client().CoreV1().Secrets(ns)
	url := ""
	t.Run("a pod waits for its secret", func(t *testing.T) {
		createPod(ctx, t, c, ns, `
securityContext: {runAsUser: 1000, fsGroup: 2000}
volumes:
- {name: s, secret: {secretName: s, defaultMode: 0400}}
- {name: o, configMap: {name: none, optional: true}}
- {name: e, emptyDir: {}}
- {name: d, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
containers: [{name: c, image: "probe:1", `+readyAt8080+`, volumeMounts: [
  {name: s, mountPath: /s}, {name: o, mountPath: /o}, {name: e, mountPath: /e}, {name: d, mountPath: /d}]}]`)
		awaitPod(ctx, t, c, ns, "a complaint", func(o *corev1.Pod) bool {
			return len(o.Status.ContainerStatuses) == 1 && o.Status.ContainerStatuses[0].State.Waiting != nil &&
				strings.Contains(o.Status.ContainerStatuses[0].State.Waiting.Message, `"s" not found`)
		})
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"a": "one", "b": "two"}}
		if _, err := secrets.Create(ctx, s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		url = "http://" + awaitPod(ctx, t, c, ns, "a ready pod", isReady).Status.PodIP + ":8080"
	})
	wantGet(ctx, t, url+"/file/s/a", "one")
	wantGet(ctx, t, url+"/file/d/labels", `app="p"`)
	wantGet(ctx, t, url+"/write/e/x", "")
	if _, err := get(ctx, url+"/write/s/x"); err == nil {
		t.Error("a secret's volume can be written to")
	}

	patch := `{"stringData":{"a":"three","b":null,"c":"new"},"data":{"b":null}}`
	if _, err := secrets.Patch(ctx, "s", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	err := c.Wait(ctx, "the new secret", func(ctx context.Context) error {
		if got, err := get(ctx, url+"/file/s/a"); err != nil || got != "three" {
			return fmt.Errorf("%q, %w", got, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantGet(ctx, t, url+"/file/s/c", "new")
	if got, err := get(ctx, url+"/file/s/b"); err == nil {
		t.Errorf("a key that the secret lost is still there: %q", got)
	}
}

func TestEnvironment(t *testing.T) {
	ctx, c, ns := use(t)
	if err := c.Apply(ctx, fmt.Appendf(nil, `{apiVersion: v1, kind: ConfigMap, metadata: {name: m, namespace: %s}, data: {k: v}}`, ns)); err != nil {
		t.Fatal(err)
	}
	url := probePod(ctx, t, c, ns, `
containers:
- name: c
  image: probe:1
  `+readyAt8080+`
  resources: {limits: {cpu: 1500m, memory: 64Mi}}
  envFrom: [{prefix: X_, configMapRef: {name: m}}]
  env:
  - {name: A, value: "a$(X_k)$$(X_k)$(NONE)"}
  - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
  - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
  - {name: MEM, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
  - {name: K, valueFrom: {configMapKeyRef: {name: m, key: k}}}
  - {name: NOT, valueFrom: {secretKeyRef: {name: m, key: k, optional: true}}}`)
	for name, want := range map[string]string{
		"A": "av$(X_k)$(NONE)", "IP": strings.TrimSuffix(strings.TrimPrefix(url, "http://"), ":8080"), "CPU": "2", "MEM": "64", "K": "v", "NOT": "",
		"HOSTNAME": "p",
	} {
		if got, err := get(ctx, url+"/env/"+name); err != nil || got != want {
			t.Errorf("$%s = %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestUsers(t *testing.T) {
	const port80 = `env: [{name: PORT, value: "80"}]`
	tests := []struct {
		name, spec string
		want       string // in the logs or the waiting message, or "ready"
	}{
		{"root is refused", `
securityContext: {runAsNonRoot: true}
containers: [{name: c, image: probe}]`, "runAsNonRoot"},
		{"root binds port 80", `containers: [{name: c, image: probe, ` + port80 + `}]`, "listening on 80"},
		{"root without capabilities does not", `
containers: [{name: c, image: probe, ` + port80 + `, securityContext: {capabilities: {drop: [ALL]}}}]`, "permission denied"},
		{"a user does not bind port 80", `
securityContext: {runAsUser: 65532, runAsNonRoot: true}
containers: [{name: c, image: probe-root, ` + port80 + `}]`, "permission denied"},
		{"a user gains what the image's file has", `
securityContext: {runAsUser: 65532}
containers: [{name: c, image: probe, ` + port80 + `}]`, "listening on 80"},
		{"a user gains what the file has without new privileges", `
securityContext: {runAsUser: 65532}
containers: [{name: c, image: probe, ` + port80 + `, securityContext: {allowPrivilegeEscalation: false}}]`, "listening on 80"},
		{"a user does not gain what the container drops", `
securityContext: {runAsUser: 65532}
containers: [{name: c, image: probe, ` + port80 + `, securityContext: {capabilities: {drop: [ALL]}}}]`, "permission denied"},
		{"a capability does not help a user", `
securityContext: {runAsUser: 65532, runAsNonRoot: true}
containers: [{name: c, image: probe-root, ` + port80 + `, securityContext: {capabilities: {add: [NET_BIND_SERVICE]}}}]`, "permission denied"},
		{"a sysctl does", `
securityContext: {runAsUser: 65532, runAsNonRoot: true, sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: "0"}]}
containers: [{name: c, image: probe-root, ` + port80 + `, securityContext: {capabilities: {drop: [ALL]}}}]`, "listening on 80"},
		{"an unknown image", `containers: [{name: c, image: "none:1"}]`, "stands for no program"},
		{"a command that is not there", `containers: [{name: c, image: probe, command: [/bin/sh]}]`, "no such file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if strings.HasPrefix(test.name, "a user gains") && oneUser() {
				t.Skip("needs a lab that root made")
			}
			ctx, c, ns := use(t)
			createPod(ctx, t, c, ns, test.spec)
			awaitPod(ctx, t, c, ns, test.want, func(o *corev1.Pod) bool {
				for _, s := range o.Status.ContainerStatuses {
					if s.State.Waiting != nil && strings.Contains(s.State.Waiting.Message, test.want) {
						return true
					}
				}
				logs, _ := c.Logs(ns, "p")
				return strings.Contains(logs, test.want)
			})
		})
	}
}

func TestReadOnlyRoot(t *testing.T) {
	ctx, c, ns := use(t)
	url := probePod(ctx, t, c, ns, `
securityContext: {runAsUser: 1000, runAsGroup: 3000}
containers: [{name: c, image: probe, `+readyAt8080+`, securityContext: {readOnlyRootFilesystem: true}}]`)
	wantGet(ctx, t, url+"/id", "uid 1000 gid 3000")
	if _, err := get(ctx, url+"/write/tmp/x"); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("writing to a read-only root: %v", err)
	}
}

func TestPodReachesAPI(t *testing.T) {
	ctx, c, ns := use(t)
	url := probePod(ctx, t, c, ns, `containers: [{name: c, image: probe, `+readyAt8080+`}]`)
	wantGet(ctx, t, url+"/api?path=/version", "v1.37")
	_, err := get(ctx, url+"/api?path=/api/v1/namespaces/"+ns+"/secrets")
	if err == nil || !strings.Contains(err.Error(), "403") || !strings.Contains(err.Error(), "system:serviceaccount:"+ns+":default") {
		t.Errorf("an account without rules lists secrets: %v", err)
	}
}

func TestEndings(t *testing.T) {
	tests := []struct {
		name, spec string
		phase      corev1.PodPhase
		code       int32
		restarts   int32
	}{
		{"success", `{restartPolicy: Never, containers: [{name: c, image: probe, args: [exit, "0"]}]}`, corev1.PodSucceeded, 0, 0},
		{"failure", `{restartPolicy: Never, containers: [{name: c, image: probe, args: [exit, "3"]}]}`, corev1.PodFailed, 3, 0},
		{"again on failure", `{restartPolicy: OnFailure, volumes: [{name: e, emptyDir: {}}],
containers: [{name: c, image: probe, args: [fail-once, /e/x], volumeMounts: [{name: e, mountPath: /e}]}]}`, corev1.PodSucceeded, 0, 1},
		{"after an init container", `{restartPolicy: Never, initContainers: [{name: i, image: probe, args: [say, hello]}],
containers: [{name: c, image: probe, args: [exit, "0"]}]}`, corev1.PodSucceeded, 0, 0},
		{"with a sidecar", `{restartPolicy: Never, initContainers: [{name: i, image: probe, restartPolicy: Always}],
containers: [{name: c, image: probe, args: [exit, "0"]}]}`, corev1.PodSucceeded, 0, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, c, ns := use(t)
			createPod(ctx, t, c, ns, test.spec)
			o := awaitPod(ctx, t, c, ns, "the end", func(o *corev1.Pod) bool { return finished(o) })
			s := o.Status.ContainerStatuses[0]
			if o.Status.Phase != test.phase || s.State.Terminated == nil || s.State.Terminated.ExitCode != test.code || s.RestartCount != test.restarts {
				t.Errorf("phase %s, status %+v, want %s, code %d, %d restarts", o.Status.Phase, s, test.phase, test.code, test.restarts)
			}
		})
	}
}

func TestLabIsClosed(t *testing.T) {
	use(t)
	// 192.0.2.0/24 is for documentation: if there is any way out, the attempt hangs instead of failing at once.
	conn, err := net.Dial("tcp", "192.0.2.1:80")
	if err == nil {
		conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("dialling out of the lab: %v, want network is unreachable", err)
	}
	if err := errors.Join(furnishLab()); err != nil {
		t.Errorf("furnishing the lab twice: %v", err)
	}
}

func TestGrace(t *testing.T) {
	ctx, c, ns := use(t)
	pods := c.Client().CoreV1().Pods(ns)
	url := probePod(ctx, t, c, ns, `
containers: [{name: c, image: probe, `+readyAt8080+`, lifecycle: {preStop: {sleep: {seconds: 2}}}}]`)
	if err := pods.Delete(ctx, "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	o := awaitPod(ctx, t, c, ns, "its end to begin", func(o *corev1.Pod) bool { return o.DeletionTimestamp != nil })
	wantGet(ctx, t, url+"/id", "uid") // the hook runs
	begin := o.DeletionTimestamp.Add(-time.Duration(*o.DeletionGracePeriodSeconds) * time.Second)
	err := c.Wait(ctx, "the pod to go", func(ctx context.Context) error {
		if _, err := pods.Get(ctx, "p", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("still there: %w", err)
		}
		return nil
	})
	if took := time.Since(begin); err != nil || took < 2*time.Second || took > 10*time.Second {
		t.Errorf("%v after %s, want about 2 s: the hook, then SIGTERM", err, took)
	}
}

func TestHostNetwork(t *testing.T) {
	ctx, c, ns := use(t)
	createPod(ctx, t, c, ns, `
hostNetwork: true
containers: [{name: c, image: probe, env: [{name: PORT, value: "8099"}], readinessProbe: {tcpSocket: {port: 8099}}}]`)
	o := awaitPod(ctx, t, c, ns, "a ready pod", isReady)
	if o.Status.PodIP != o.Status.HostIP {
		t.Errorf("its address is %s, the node's is %s", o.Status.PodIP, o.Status.HostIP)
	}
	wantGet(ctx, t, "http://127.0.0.1:8099/id", "uid 0")
}
