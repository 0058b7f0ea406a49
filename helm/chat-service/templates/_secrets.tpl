{{- /*
All references {value} or {existingSecret, key} that are given, by the name of their environment variable. What comes
by value stands in a Secret of the release, under that name.
*/}}
{{- define "chat-service.references" -}}
{{- range $name, $reference := .Values.secrets }}
{{- if $reference }}
{{ $name }}: {{ toJson $reference }}
{{- end }}
{{- end }}
{{- range $prefix, $parts := dict "DATABASE" .Values.database "REDIS" .Values.redis }}
{{- range $part := list "host" "port" "user" "password" "name" }}
{{- with get $parts $part }}
{{ $prefix }}_{{ upper $part }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "chat-service.secretValues" -}}
{{- range $name, $reference := include "chat-service.references" . | fromYaml }}
{{- if $reference.value }}
{{ $name }}: {{ $reference.value | b64enc }}
{{- end }}
{{- end }}
{{- end }}

{{- define "chat-service.databaseUrl" -}}
postgresql://$(DATABASE_USER):$(DATABASE_PASSWORD)@$(DATABASE_HOST):{{ ternary "$(DATABASE_PORT)" "5432" (not (empty .port)) }}/$(DATABASE_NAME)
{{- with .options }}?{{ . }}{{ end }}
{{- end }}

{{- define "chat-service.redisUrl" -}}
{{ ternary "rediss" "redis" .tls }}://
{{- if .user }}$(REDIS_USER){{ end }}
{{- if .password }}:$(REDIS_PASSWORD)@{{ end }}$(REDIS_HOST):{{ ternary "$(REDIS_PORT)" "6379" (not (empty .port)) }}/{{ .database }}
{{- end }}

{{- /* The environment of every container: `root`, and `secret`, the Secret that holds what came by value. */}}
{{- define "chat-service.env" -}}
{{- $values := .root.Values }}
{{- range $name, $value := $values.settings }}
- name: {{ $name }}
  value: {{ ternary (toJson $value) $value (kindIs "float64" $value) | quote }}
{{- end }}
{{- range $name, $reference := include "chat-service.references" .root | fromYaml }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $reference.existingSecret | default $.secret }}
      key: {{ $reference.key | default $name }}
{{- end }}
{{- if $values.database.host }}
- name: DATABASE_URL
  value: {{ include "chat-service.databaseUrl" $values.database | quote }}
{{- end }}
{{- if $values.redis.host }}
- name: REDIS_URL
  value: {{ include "chat-service.redisUrl" $values.redis | quote }}
{{- end }}
{{- with $values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
