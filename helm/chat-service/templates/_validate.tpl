{{- /* What values.schema.json cannot say in words that help. */}}
{{- define "chat-service.validate" -}}
{{- $given := keys (include "chat-service.references" . | fromYaml) }}
{{- range .Values.extraEnv }}
{{- $given = append $given (trimSuffix "_FILE" .name) }}
{{- end }}
{{- range list "AUTH_JWT_SECRET" "INTERNAL_API_SECRET" }}
{{- if not (has . $given) }}
{{- fail (printf "secrets.%s is required: {value: …}, or {existingSecret: …, key: …}" .) }}
{{- end }}
{{- end }}
{{- if and .Values.settings.WEBHOOK_URL (not (has "WEBHOOK_SECRET" $given)) }}
{{- fail "secrets.WEBHOOK_SECRET is required because settings.WEBHOOK_URL is set" }}
{{- end }}
{{- range $prefix, $needed := dict "DATABASE" (list "host" "user" "password" "name") "REDIS" (list "host") }}
{{- $parts := get $.Values (lower $prefix) }}
{{- $some := false }}
{{- range list "host" "port" "user" "password" "name" }}
{{- $some = or $some (not (empty (get $parts .))) }}
{{- end }}
{{- $whole := has (printf "%s_URL" $prefix) $given }}
{{- if and $whole $some }}
{{- fail (printf "secrets.%s_URL and %s contradict each other: give one of them" $prefix (lower $prefix)) }}
{{- end }}
{{- if not (or $whole $some) }}
{{- fail (printf "secrets.%s_URL is required, or its parts in %s" $prefix (lower $prefix)) }}
{{- end }}
{{- range $needed }}
{{- if and $some (not (get $parts .)) }}
{{- fail (printf "%s.%s is required, or else secrets.%s_URL" (lower $prefix) . $prefix) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (not .Values.redis.password) .Values.redis.user }}
{{- fail "redis.password is required because redis.user is set" }}
{{- end }}
{{- with .Values.settings }}
{{- if lt (list .HTTP_PORT .WS_PORT .METRICS_PORT | uniq | len) 3 }}
{{- fail "settings.HTTP_PORT, WS_PORT and METRICS_PORT must differ: the master, browsers and the scraper are let in apart" }}
{{- end }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.master) }}
{{- fail "networkPolicy.master is required: an empty list would let everybody reach the internal API" }}
{{- end }}
{{- end }}
