{{/* The fields that the schema "want" has and the schema "have" has not, one a line. Fields of a field that is not there are not told. */}}
{{- define "gatehouse.missing" -}}
{{- $have := default dict .have -}}
{{- $at := .at -}}
{{- range $name, $p := .want.properties -}}
{{- $there := get (default dict $have.properties) $name -}}
{{- if $there -}}
{{ include "gatehouse.missing" (dict "want" $p "have" $there "at" (printf "%s.%s" $at $name)) }}
{{- else -}}
{{ printf "%s.%s\n" $at $name }}
{{- end -}}
{{- end -}}
{{- with .want.items -}}
{{ include "gatehouse.missing" (dict "want" . "have" $have.items "at" $at) }}
{{- end -}}
{{- end -}}
