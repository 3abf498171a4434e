{{/* The rights of Gatehouse. tools/chart/testdata/rbac*.txt lists them; docs/tasks/install.md says what each is for. */}}

{{/* What is read and written in the namespaces that are watched. */}}
{{- define "gatehouse.rules.namespaced" -}}
- apiGroups: [""]
  resources: [services, configmaps, secrets]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses/status]
  verbs: [patch, update]
- apiGroups: [gateway.networking.k8s.io]
  resources: [backendtlspolicies, gateways, httproutes, referencegrants]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [backendtlspolicies/status, gateways/status, httproutes/status]
  verbs: [patch, update]
- apiGroups: [gatehouse.dev]
  resources: [authpolicies, backends, backendtrafficpolicies, clienttrafficpolicies, gatewayparameters, protectionpolicies, ratelimitpolicies]
  verbs: [get, list, watch]
- apiGroups: [gatehouse.dev]
  resources: [authpolicies/status, backends/status, backendtrafficpolicies/status, clienttrafficpolicies/status, gatewayparameters/status, protectionpolicies/status, ratelimitpolicies/status]
  verbs: [patch, update]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* What has no namespace, but for namespaces themselves. */}}
{{- define "gatehouse.rules.cluster" -}}
- apiGroups: [networking.k8s.io]
  resources: [ingressclasses]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses/status]
  verbs: [patch, update]
{{- end -}}

{{/* What is Gatehouse's own, in the release's namespace: Services for Gateways, and the lease. */}}
{{- define "gatehouse.rules.own" -}}
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end -}}

{{/* A role with its binding to the ServiceAccount. Call with (dict "root" $ "namespace" NAMESPACE-OR-EMPTY "name" NAME "rules" RULES). */}}
{{- define "gatehouse.role" -}}
{{- $kind := ternary "Role" "ClusterRole" (ne .namespace "") -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "gatehouse.labels" .root | nindent 4 }}
rules:
{{ .rules }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "gatehouse.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $kind }}
  name: {{ .name }}
subjects:
- kind: ServiceAccount
  name: {{ include "gatehouse.serviceaccount" .root }}
  namespace: {{ .root.Release.Namespace }}
{{- end -}}
