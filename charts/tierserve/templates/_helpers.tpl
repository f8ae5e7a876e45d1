{{- define "tierserve.fullname" -}}
{{- $name := default "tierserve-operator" .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains .Release.Name $name -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "tierserve.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tierserve.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- /* The network policies of services know the operator by app.kubernetes.io/name. */ -}}
{{- define "tierserve.selector" -}}
app.kubernetes.io/name: tierserve-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tierserve.labels" -}}
{{ include "tierserve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* What the operator does, one rule for each way in which it asks; see runtime/kube/cluster.py and handlers.py. */ -}}
{{- define "tierserve.rules" -}}
- apiGroups: [serving.tierserve.io]  # watched
  resources: [genaideployments]
  verbs: [get, list, watch]
- apiGroups: [serving.tierserve.io]  # conditions and figures
  resources: [genaideployments/status]
  verbs: [patch]
- apiGroups: [ray.io]  # a Ray cluster per tier and site
  resources: [rayservices]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]  # the gateway
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]  # why do they not run?
  resources: [pods]
  verbs: [list]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, create, patch, delete]
- apiGroups: [monitoring.coreos.com]  # where the Prometheus operator is
  resources: [servicemonitors, prometheusrules]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]  # posted when a condition changes; read for what admission or a quota refuses
  resources: [events]
  verbs: [create, list]
{{- end }}
