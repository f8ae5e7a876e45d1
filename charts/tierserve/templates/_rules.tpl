{{- /* Rights of the operator, one rule per kind of request; see controller/handlers.py and runtime/kubernetes/. */ -}}
{{- define "tierserve.rules" -}}
- apiGroups: [serving.tierserve.io]  # watched
  resources: [genaideployments]
  verbs: [get, list, watch]
- apiGroups: [serving.tierserve.io]  # conditions and other status fields
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
- apiGroups: [""]  # reasons of pods that do not run, for conditions
  resources: [pods]
  verbs: [list]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, create, patch, delete]
- apiGroups: [monitoring.coreos.com]  # if the Prometheus operator is installed
  resources: [servicemonitors, prometheusrules]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]  # created if a condition changes; read for rejections by admission or a quota
  resources: [events]
  verbs: [create, list]
{{- end }}

{{- /* Additional rules if all namespaces are watched. */ -}}
{{- define "tierserve.clusterRules" -}}
- apiGroups: [apiextensions.k8s.io]  # to detect the installation of KubeRay
  resources: [customresourcedefinitions]
  verbs: [list, watch]
{{- end }}

{{- /* Rights of the console: it shows, and changes nothing. */ -}}
{{- define "tierserve.consoleRules" -}}
- apiGroups: [serving.tierserve.io]
  resources: [genaideployments]
  verbs: [get, list, watch]
{{- end }}
