{{- /* Rules that let pods out to some of networkPolicy.egress: `root`, `names`. */}}
{{- define "chat-service.egress" -}}
{{- $egress := .root.Values.networkPolicy.egress }}
{{- range $name := .names }}
{{- with get $egress $name }}
- ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- if eq $name "dns" }}
    - {protocol: UDP, port: {{ . }}}
    {{- end }}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A policy's selector: `root`, `component`. */}}
{{- define "chat-service.policySelector" -}}
podSelector:
  matchLabels:
    {{- include "chat-service.selector" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
{{- end }}
