{{/* The pod of the Deployment or DaemonSet. */}}

{{- define "gatehouse.pod" -}}
metadata:
  labels:
    {{- include "gatehouse.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: gatehouse
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "gatehouse.serviceaccount" . }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "gatehouse.grace" . }}
  {{- if include "gatehouse.hostnetwork" . }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  securityContext:
    {{- include "gatehouse.podsecurity" . | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "gatehouse.spread" . | trim }}
  topologySpreadConstraints:
    {{- . | nindent 4 }}
  {{- end }}
  containers:
  - name: gatehouse
    {{- include "gatehouse.container" . | nindent 4 }}
  {{- with include "gatehouse.volumes" . | trim }}
  volumes:
    {{- . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "gatehouse.container" -}}
image: {{ include "gatehouse.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
{{ include "gatehouse.args" . }}
env:
{{ include "gatehouse.env" . }}
ports:
- name: health
  containerPort: {{ .Values.healthPort }}
{{- if and (eq .Values.exposure "Host") (not (include "gatehouse.hostnetwork" .)) }}
{{- range .Values.host.ports }}
- name: host-{{ . }}
  containerPort: {{ . }}
  hostPort: {{ . }}
{{- end }}
{{- end }}
startupProbe: # up to a minute to begin; then the liveness probe takes over
  httpGet: {path: /healthz, port: health}
  periodSeconds: 1
  timeoutSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe: # 503 from the moment the pod is told to end
  httpGet: {path: /readyz, port: health}
  periodSeconds: 3
  timeoutSeconds: 2
  failureThreshold: 1
securityContext:
  {{- include "gatehouse.security" . | nindent 2 }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "gatehouse.mounts" . | trim }}
volumeMounts:
{{ . }}
{{- end }}
{{- end -}}

{{- define "gatehouse.args" -}}
- run
- --gateway-controller={{ .Values.controllers.gateway }}
- --ingress-controller={{ .Values.controllers.ingress }}
{{- with include "gatehouse.namespaces" . }}
- --watch-namespaces={{ . }}
{{- end }}
- --exposure={{ .Values.exposure }}
- --pod-selector={{ include "gatehouse.podselector" . }}
{{- with .Values.publishService }}
- --publish-service={{ . }}
{{- end }}
- --leader-election-namespace={{ .Release.Namespace }}
- --leader-election-lease={{ default (include "gatehouse.fullname" .) .Values.leaderElection.lease }}
- --health=:{{ .Values.healthPort }}
- --admin={{ .Values.admin }}
- --access-log={{ .Values.logs.access }}
- --access-log-format={{ .Values.logs.accessFormat }}
- --log-level={{ .Values.logs.level }}
- --drain-grace={{ .Values.drainGrace }}
{{- with include "gatehouse.storeargs" . | trim }}
{{ . }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "gatehouse.env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_ZONE # empty before Kubernetes 1.35, which copies the node's label
  valueFrom: {fieldRef: {fieldPath: "metadata.labels['topology.kubernetes.io/zone']"}}
- name: HOST_IP
  valueFrom: {fieldRef: {fieldPath: status.hostIP}}
- name: HOST_IPS
  valueFrom: {fieldRef: {fieldPath: status.hostIPs}}
{{- with include "gatehouse.gomemlimit" . }}
- name: GOMEMLIMIT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* "true" if the pods use the node's network. */}}
{{- define "gatehouse.hostnetwork" -}}
{{- if and (eq .Values.exposure "Host") .Values.host.network -}}true{{- end -}}
{{- end -}}

{{/* Ports below 1024 of the pod's own network are opened to all of it: nothing else runs there. A volume with data is made writable. */}}
{{- define "gatehouse.podsecurity" -}}
{{- $c := deepCopy (default dict .Values.podSecurityContext) -}}
{{- if and (eq .Values.exposure "Host") (not .Values.host.network) -}}
{{- $low := dict "name" "net.ipv4.ip_unprivileged_port_start" "value" "0" -}}
{{- $_ := set $c "sysctls" (append (default list $c.sysctls) $low) -}}
{{- end -}}
{{- if and .Values.stores.data (not (hasKey $c "fsGroup")) -}}
{{- $_ := set $c "fsGroup" (default 65532 $c.runAsGroup) -}}
{{- end -}}
{{- toYaml $c -}}
{{- end -}}

{{/* A user who is not root has a capability only if the program's file carries it too: that of our image does, as permitted alone, so
that it starts without the capability as well. */}}
{{- define "gatehouse.security" -}}
{{- $c := deepCopy (default dict .Values.securityContext) -}}
{{- if and (include "gatehouse.hostnetwork" .) .Values.host.lowPorts -}}
{{- $caps := default dict $c.capabilities -}}
{{- $_ := set $caps "add" (append (default list $caps.add) "NET_BIND_SERVICE" | uniq) -}}
{{- $_ := set $c "capabilities" $caps -}}
{{- end -}}
{{- toYaml $c -}}
{{- end -}}

{{/* Over zones, then over nodes. matchLabelKeys: old and new pods of a rollout do not count against each other. */}}
{{- define "gatehouse.spread" -}}
{{- if kindIs "invalid" .Values.topologySpreadConstraints -}}
{{- if eq .Values.kind "Deployment" -}}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "gatehouse.selector" $ | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end -}}
{{- else if .Values.topologySpreadConstraints -}}
{{- toYaml .Values.topologySpreadConstraints -}}
{{- end -}}
{{- end -}}

{{/* goMemoryLimitPercent of limits.memory, in bytes. */}}
{{- define "gatehouse.gomemlimit" -}}
{{- $limit := dig "limits" "memory" "" (default dict .Values.resources) | toString -}}
{{- if and $limit .Values.goMemoryLimitPercent -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" $limit -}}
{{- $unit := trimPrefix $number $limit -}}
{{- if or (not $number) (not (hasKey $units $unit)) -}}
{{- fail (printf "resources.limits.memory is %q: write a number with Ki, Mi, Gi, Ti, k, M, G, T or no unit, or set goMemoryLimitPercent to 0 and GOMEMLIMIT in extraEnv" $limit) -}}
{{- end -}}
{{- mulf (float64 $number) (get $units $unit) .Values.goMemoryLimitPercent 0.01 | floor | int64 -}}
{{- end -}}
{{- end -}}

{{/* terminationGracePeriodSeconds, which must hold drainGrace and the 40 s in which what is in flight may finish. */}}
{{- define "gatehouse.grace" -}}
{{- $seconds := 40 -}}
{{- range regexFindAll "[0-9]+(ms|s|m)" .Values.drainGrace -1 -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $seconds = add $seconds (ternary (mul 60 $number) (ternary $number 0 (eq $unit "s")) (eq $unit "m")) -}}
{{- end -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) (int $seconds) -}}
{{- fail (printf "terminationGracePeriodSeconds is %v: pods would be killed with requests in flight; drainGrace and 40 s more need %v" .Values.terminationGracePeriodSeconds $seconds) -}}
{{- end -}}
{{- .Values.terminationGracePeriodSeconds -}}
{{- end -}}
