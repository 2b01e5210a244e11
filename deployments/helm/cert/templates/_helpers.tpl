{{- define "cert.selector" -}}
app.kubernetes.io/name: {{ . }}-monitor
{{- end }}

{{- define "cert.labels" -}}
app.kubernetes.io/name: {{ .component }}-monitor
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: cert-framework
{{- end }}

{{- define "cert.versioned" -}}
{{ include "cert.labels" . }}
app.kubernetes.io/version: {{ .version }}
{{- end }}
