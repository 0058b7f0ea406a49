{{- define "chat-service.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* The longest suffix is that of the public Service, so that its name stays within 63 characters. */}}
{{- define "chat-service.fullname" -}}
{{- $name := include "chat-service.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- .Values.fullnameOverride | default $full | trunc 48 | trimSuffix "-" }}
{{- end }}

{{- define "chat-service.selector" -}}
app.kubernetes.io/name: {{ include "chat-service.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Of pods: no versions, which would roll out what has not changed. */}}
{{- define "chat-service.podLabels" -}}
{{ include "chat-service.selector" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "chat-service.labels" -}}
{{ include "chat-service.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "chat-service.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "chat-service.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (ternary (include "chat-service.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- /* A time as the service writes it (500ms, 20s, 2m), in whole seconds. */}}
{{- define "chat-service.seconds" -}}
{{- $unit := regexFind "[a-z]+$" (toString .) | default "s" }}
{{- $factor := get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) $unit }}
{{- mulf (regexFind "^[0-9.]+" (toString .) | float64) $factor | ceil | int }}
{{- end }}

{{- /* What a stopping pod may take beyond its preStop: the drain, and then to close what is open. */}}
{{- define "chat-service.drainSeconds" -}}
{{- add (include "chat-service.seconds" .Values.settings.DRAIN_TIMEOUT) 10 }}
{{- end }}
