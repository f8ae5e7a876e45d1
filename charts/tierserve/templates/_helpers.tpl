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

{{- /* Releases of the same name in several namespaces (one per team) must not share cluster-scoped objects. */ -}}
{{- define "tierserve.clusterName" -}}
{{- include "tierserve.fullname" . -}}{{- if .Values.watchNamespaces -}}-{{ .Release.Namespace }}{{- end -}}
{{- end }}

{{- define "tierserve.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tierserve.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- /* app.kubernetes.io/name does not depend on nameOverride: the NetworkPolicies of services select it. */ -}}
{{- define "tierserve.selector" -}}
app.kubernetes.io/name: tierserve-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tierserve.labels" -}}
{{- $own := include "tierserve.selector" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version) -}}
{{- merge $own .Values.commonLabels | toYaml -}}
{{- end }}

{{- /* Image reference, REPOSITORY@DIGEST or REPOSITORY:TAG. The argument is a list: the root context, the image. */ -}}
{{- define "tierserve.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end }}

{{- /* Names of the pull secrets of this chart and of `global` of a parent chart (also as strings), comma-separated. */ -}}
{{- define "tierserve.pullSecrets" -}}
{{- $names := list -}}
{{- range concat .Values.imagePullSecrets ((.Values.global | default dict).imagePullSecrets | default list) -}}
{{- if kindIs "string" . -}}{{- $names = append $names . -}}{{- else -}}{{- $names = append $names .name -}}{{- end -}}
{{- end -}}
{{- uniq $names | join "," -}}
{{- end }}

{{- /* The console is another workload: its pods must not match the selectors of the operator. */ -}}
{{- define "tierserve.consoleName" -}}
{{- printf "%s-console" (include "tierserve.fullname" .) -}}
{{- end }}

{{- define "tierserve.consoleSelector" -}}
app.kubernetes.io/name: tierserve-console
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tierserve.consoleLabels" -}}
{{- merge (include "tierserve.consoleSelector" . | fromYaml) (include "tierserve.labels" . | fromYaml) | toYaml -}}
{{- end }}

{{- define "tierserve.consoleServiceAccount" -}}
{{- if .Values.console.serviceAccount.create -}}
{{- default (include "tierserve.consoleName" .) .Values.console.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.console.serviceAccount.name -}}
{{- end -}}
{{- end }}
