{{- /* A job before the rollout: `root`, `component`, `args`, `weight`, `backoffLimit`, `deadlineSeconds`. */}}
{{- define "chat-service.job" -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "chat-service.fullname" .root }}-{{ .component }}
  labels:
    {{- include "chat-service.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  annotations:
    helm.sh/hook: pre-install,pre-upgrade
    helm.sh/hook-weight: {{ .weight | quote }}
    # One that failed stays, with its log, until the next try.
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  backoffLimit: {{ .backoffLimit }}
  activeDeadlineSeconds: {{ .deadlineSeconds }}
  template:
    metadata:
      labels:
        {{- include "chat-service.podLabels" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
    spec:
      restartPolicy: Never
      # At the first install the release's own account is not there yet.
      serviceAccountName: {{ ternary "default" (include "chat-service.serviceAccount" .root) .root.Values.serviceAccount.create }}
      {{- include "chat-service.pod" .root | trim | nindent 6 }}
      containers:
        - name: {{ .component }}
          {{- include "chat-service.container" (dict "root" .root "secret" (printf "%s-hooks" (include "chat-service.fullname" .root))) | trim | nindent 10 }}
          args: {{ toJson .args }}
          resources:
            {{- toYaml .root.Values.jobs.resources | nindent 12 }}
{{- end }}
