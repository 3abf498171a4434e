{{/* Where keys and counters are kept. URLs hold passwords: they come as files from Secrets, never as arguments. */}}

{{- define "gatehouse.storeargs" -}}
{{- with .Values.stores }}
{{- if .data }}
- --data=/stores/data
{{- end }}
{{- if .databaseSecretRef }}
- --database-file=/stores/database/url
{{- end }}
{{- if .redisSecretRef }}
- --redis-file=/stores/redis/url
{{- end }}
{{- if .geoip.volume }}
- --geoip=/stores/geoip/{{ .geoip.file }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "gatehouse.volumes" -}}
{{- include "gatehouse.storescheck" . }}
{{- with .Values.stores }}
{{- with .data }}
- name: store-data
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .databaseSecretRef }}
- name: store-database
  secret: {{ include "gatehouse.urlof" . }}
{{- end }}
{{- with .redisSecretRef }}
- name: store-redis
  secret: {{ include "gatehouse.urlof" . }}
{{- end }}
{{- with .geoip.volume }}
- name: store-geoip
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "gatehouse.urlof" -}}
{secretName: {{ .name | quote }}, items: [{key: {{ default "url" .key | quote }}, path: url}]}
{{- end -}}

{{- define "gatehouse.mounts" -}}
{{- with .Values.stores }}
{{- if .data }}
- {name: store-data, mountPath: /stores/data}
{{- end }}
{{- if .databaseSecretRef }}
- {name: store-database, mountPath: /stores/database, readOnly: true}
{{- end }}
{{- if .redisSecretRef }}
- {name: store-redis, mountPath: /stores/redis, readOnly: true}
{{- end }}
{{- if .geoip.volume }}
- {name: store-geoip, mountPath: /stores/geoip, readOnly: true}
{{- end }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* "true" if the pod keeps its data in a claim, which no second pod may open. */}}
{{- define "gatehouse.claim" -}}
{{- if hasKey .Values.stores.data "persistentVolumeClaim" -}}true{{- end -}}
{{- end -}}

{{- define "gatehouse.storescheck" -}}
{{- if and .Values.stores.data .Values.stores.databaseSecretRef -}}
{{- fail "stores.data and stores.databaseSecretRef are both set: keys and quotas are kept in one of the two" -}}
{{- end -}}
{{- if and (include "gatehouse.claim" .) (or (eq .Values.kind "DaemonSet") .Values.autoscaling.enabled (gt (int .Values.replicas) 1)) -}}
{{- fail "stores.data is a claim, for one pod: set replicas=1 with kind Deployment and no autoscaling, or use stores.databaseSecretRef" -}}
{{- end -}}
{{- end -}}
