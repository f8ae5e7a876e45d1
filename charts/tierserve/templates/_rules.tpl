{{- /* What the operator does, a rule per kind of request; see runtime/kube/cluster.py and handlers.py. */ -}}
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
- apiGroups: [""]  # the reasons of those that do not run
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

{{- /* Besides, where all namespaces are watched. */ -}}
{{- define "tierserve.clusterRules" -}}
- apiGroups: [apiextensions.k8s.io]  # has KubeRay been installed?
  resources: [customresourcedefinitions]
  verbs: [list, watch]
{{- end }}
