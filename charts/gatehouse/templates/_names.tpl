{{/* Names and labels. */}}

{{- define "gatehouse.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "gatehouse.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "gatehouse.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "gatehouse.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of what lies outside the release's namespace: no other release has it, because no name holds a colon. */}}
{{- define "gatehouse.globalname" -}}
{{- printf "gatehouse:%s:%s" .Release.Namespace (include "gatehouse.fullname" .) -}}
{{- end -}}

{{- define "gatehouse.serviceaccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "gatehouse.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The labels that select the pods, as lines. They never change: a Deployment's selector cannot. */}}
{{- define "gatehouse.selector" -}}
app.kubernetes.io/name: {{ include "gatehouse.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gatehouse.labels" -}}
{{ include "gatehouse.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The same as one word k=v,k=v: Gatehouse's Services for Gateways select by it. */}}
{{- define "gatehouse.podselector" -}}
app.kubernetes.io/name={{ include "gatehouse.name" . }},app.kubernetes.io/instance={{ .Release.Name }}
{{- end -}}

{{- define "gatehouse.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The namespaces that are read, with commas: those of the values and the release's own. Empty: all. */}}
{{- define "gatehouse.namespaces" -}}
{{- with .Values.watchNamespaces -}}
{{- append . $.Release.Namespace | uniq | sortAlpha | join "," -}}
{{- end -}}
{{- end -}}

{{/* GatewayParameters of a class, as JSON {"name", "namespace"}, {} for none. Call with (list $ CLASS). */}}
{{- define "gatehouse.parameters" -}}
{{- $root := index . 0 -}}
{{- $class := index . 1 -}}
{{- if $class.parametersRef -}}
{{- $class.parametersRef | toJson -}}
{{- else if $root.Values.parameters -}}
{{- dict "name" (include "gatehouse.fullname" $root) "namespace" $root.Release.Namespace | toJson -}}
{{- else -}}
{}
{{- end -}}
{{- end -}}
