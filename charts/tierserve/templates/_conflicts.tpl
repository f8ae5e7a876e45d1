{{- /*
Conflicts with other releases in the cluster: a CRD of another owner, and a second operator for a namespace. For the
first Helm has only an error without a hint, the second it cannot detect. `lookup` returns nothing if the cluster is not
queried: in `helm template`, and in GitOps tools that use it.
*/ -}}

{{- define "tierserve.crdName" -}}genaideployments.serving.tierserve.io{{- end }}

{{- define "tierserve.crdSchema" -}}
{{- range .spec.versions }}{{ .name }} {{ .schema | toJson }}{{ end -}}
{{- end }}

{{- /*
The CRD in the cluster, as JSON. `state`: absent; own (of this release); else, of another `owner`: same (schema of this
chart), newer or older (by the label app.kubernetes.io/version).
*/ -}}
{{- define "tierserve.existingCrd" -}}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" (include "tierserve.crdName" .) -}}
{{- if $crd -}}
{{- $labels := $crd.metadata.labels | default dict -}}
{{- $annotations := $crd.metadata.annotations | default dict -}}
{{- $managedBy := get $labels "app.kubernetes.io/managed-by" -}}
{{- $version := get $labels "app.kubernetes.io/version" -}}
{{- $release := get $annotations "meta.helm.sh/release-name" -}}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" -}}
{{- $chart := .Files.Get "files/genaideployments.yaml" | fromYaml -}}
{{- $state := "older" -}}
{{- if and (eq $managedBy "Helm") (eq $release .Release.Name) (eq $namespace .Release.Namespace) -}}
{{- $state = "own" -}}
{{- else if eq (include "tierserve.crdSchema" $crd) (include "tierserve.crdSchema" $chart) -}}
{{- $state = "same" -}}
{{- else if regexMatch "^[0-9]+\\.[0-9]+\\.[0-9]+" $version -}}
{{- $there := semver $version -}}
{{- if gt ($there.Compare (semver .Chart.AppVersion)) 0 -}}{{- $state = "newer" -}}{{- end -}}
{{- end -}}
{{- $owner := "no Helm release" -}}
{{- if $release -}}{{- $owner = printf "Helm release %s in namespace %s" $release $namespace -}}{{- end -}}
{{- dict "state" $state "owner" $owner "version" (default "unknown" $version) | toJson -}}
{{- else -}}
{{- dict "state" "absent" | toJson -}}
{{- end -}}
{{- end }}

{{- /* Commands that make this release the owner of the CRD; Helm then upgrades it. */ -}}
{{- define "tierserve.takeOverCrd" }}
    kubectl label crd {{ include "tierserve.crdName" . }} app.kubernetes.io/managed-by=Helm --overwrite
    kubectl annotate crd {{ include "tierserve.crdName" . }} --overwrite \
      meta.helm.sh/release-name={{ .Release.Name }} meta.helm.sh/release-namespace={{ .Release.Namespace }}
{{- end }}

{{- define "tierserve.refuseOlderCrd" -}}
{{- $crd := include "tierserve.existingCrd" . | fromJson -}}
{{- if eq $crd.state "older" -}}
{{- fail (printf `

crds.enabled: the CustomResourceDefinition %s in the cluster (version %s) belongs to %s, and its schema differs from that of this chart (version %s).
hint: if its owner is uninstalled, or no longer upgrades it, make it part of this release and run helm again:
%s
else upgrade it with its owner, or keep it as it is: --set crds.enabled=false
` (include "tierserve.crdName" .) $crd.version $crd.owner .Chart.AppVersion (include "tierserve.takeOverCrd" .)) -}}
{{- end -}}
{{- end }}

{{- /* Two operators for one namespace overwrite each other's objects if their versions or settings differ. */ -}}
{{- define "tierserve.refuseSecondOperator" -}}
{{- $root := . -}}
{{- range (lookup "apps/v1" "Deployment" "" "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $release := get $labels "app.kubernetes.io/instance" -}}
{{- $own := and (eq $release $root.Release.Name) (eq .metadata.namespace $root.Release.Namespace) -}}
{{- if and (eq (get $labels "app.kubernetes.io/name") "tierserve-operator") (not $own) -}}
{{- $theirs := list -}}{{- $shared := list -}}
{{- range (index .spec.template.spec.containers 0).args -}}
{{- if hasPrefix "--namespace=" . -}}{{- $theirs = append $theirs (trimPrefix "--namespace=" .) -}}{{- end -}}
{{- end -}}
{{- range $theirs -}}
{{- if has . $root.Values.watchNamespaces -}}{{- $shared = append $shared . -}}{{- end -}}
{{- end -}}
{{- if or $shared (not $theirs) (not $root.Values.watchNamespaces) -}}
{{- $where := "all namespaces" -}}
{{- if $theirs -}}{{- $where = join ", " (default $theirs $shared) -}}{{- end -}}
{{- fail (printf `

watchNamespaces: Helm release %s in namespace %s already has an operator for %s.
hint: upgrade or uninstall that release (services keep running without an operator), or use different namespaces for each release: --set 'watchNamespaces={NAMESPACE}'
` $release .metadata.namespace $where) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
