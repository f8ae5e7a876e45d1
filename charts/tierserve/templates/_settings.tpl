{{- /* Settings of the operator as environment variables; see controller/settings.py and KubeSettings. */ -}}
{{- define "tierserve.settings" -}}
{{- $serving := .Values.serving -}}
TIERSERVE_RESYNC_PERIOD: {{ .Values.resyncPeriod | quote }}
TIERSERVE_LIVENESS_STALE_AFTER: {{ .Values.livenessStaleAfter | quote }}
TIERSERVE_METRICS_PORT: {{ .Values.metrics.port | quote }}
TIERSERVE_LOG_FORMAT: {{ .Values.logFormat | quote }}
TIERSERVE_SERVING_IMAGE: {{ include "tierserve.image" (list . $serving.image) | quote }}
TIERSERVE_IMAGE_PULL_POLICY: {{ $serving.image.pullPolicy | quote }}
TIERSERVE_IMAGE_PULL_SECRETS: {{ include "tierserve.pullSecrets" . | quote }}
TIERSERVE_RAY_VERSION: {{ $serving.rayVersion | quote }}
TIERSERVE_GATEWAY_REPLICAS: {{ $serving.gatewayReplicas | quote }}
TIERSERVE_IDLE_TIMEOUT_S: {{ $serving.workerIdleTimeoutSeconds | quote }}
TIERSERVE_CLUSTER_DOMAIN: {{ $serving.clusterDomain | quote }}
{{- with $serving.ipFamily }}
TIERSERVE_IP_FAMILY: {{ . }}
{{- end }}
TIERSERVE_HEAD_CPU: {{ $serving.head.cpu | quote }}
TIERSERVE_HEAD_CPU_LIMIT: {{ $serving.head.cpuLimit | quote }}
TIERSERVE_HEAD_MEMORY: {{ $serving.head.memory | quote }}
TIERSERVE_WORKER_CPU: {{ $serving.worker.cpu | quote }}
TIERSERVE_WORKER_CPU_LIMIT: {{ $serving.worker.cpuLimit | quote }}
TIERSERVE_WORKER_MEMORY: {{ $serving.worker.memory | quote }}
TIERSERVE_MONITORING_LABELS: {{ .Values.monitoring.labels | toJson | quote }}
TIERSERVE_ALERT_LABELS: {{ .Values.monitoring.alertLabels | toJson | quote }}
TIERSERVE_RUNBOOK_URL: {{ .Values.monitoring.runbookUrl | quote }}
TIERSERVE_SCRAPE_FROM: {{ .Values.monitoring.scrapeFrom | toJson | quote }}
TIERSERVE_GCS_REDIS_ADDRESS: {{ $serving.gcsRedis.address | quote }}
TIERSERVE_GCS_REDIS_SECRET: {{ $serving.gcsRedis.secretName | quote }}
{{- end }}
