{{- define "triaged.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "triaged.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" }}
{{- else if contains (include "triaged.name" .) .Release.Name }}
{{- .Release.Name | trunc 48 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "triaged.name" .) | trunc 48 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "triaged.selectorLabels" -}}
app.kubernetes.io/name: {{ include "triaged.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "triaged.labels" -}}
{{ include "triaged.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "triaged.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{- define "triaged.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "triaged.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{- /* The Deployments: a dictionary of name to {roles, settings}. */ -}}
{{- define "triaged.workloads" -}}
{{- $enabled := list -}}
{{- range $role, $settings := .Values.roles -}}
{{- if $settings.enabled -}}{{- $enabled = append $enabled $role -}}{{- end -}}
{{- end -}}
{{- if not $enabled -}}{{- fail "at least one of roles.*.enabled must be true" -}}{{- end -}}
{{- $workloads := dict -}}
{{- if eq .Values.mode "single" -}}
{{- $_ := set $workloads "all" (dict "roles" ($enabled | sortAlpha | join ",") "settings" .Values.single) -}}
{{- else -}}
{{- range $role := $enabled -}}
{{- $_ := set $workloads $role (dict "roles" $role "settings" (index $.Values.roles $role)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $workloads -}}
{{- end }}

{{- /* The configuration's files, in the pods' ConfigMap and in that of the migration. */ -}}
{{- define "triaged.configData" -}}
{{- if hasKey .Values.files "triaged.toml" -}}{{- fail "files must not hold triaged.toml: that is `config`" -}}{{- end -}}
triaged.toml: |
{{- .Values.config | nindent 2 }}
{{- range $name, $text := .Values.files }}
{{ $name }}: |
{{- $text | nindent 2 }}
{{- end }}
{{- end }}

{{- /* What goes over the configuration's file. */ -}}
{{- define "triaged.environment" -}}
- name: TRIAGED_KAFKA__BROKERS
  value: {{ .Values.kafka.brokers | quote }}
{{- with .Values.kafka.delivery }}
- name: TRIAGED_KAFKA__DELIVERY
  value: {{ . | quote }}
{{- end }}
- name: TRIAGED_KAFKA__GROUP_PREFIX
  value: {{ .Values.kafka.groupPrefix | quote }}
{{- range $property, $value := .Values.kafka.properties }}
- name: TRIAGED_KAFKA__PROPERTIES__{{ $property | replace "." "_" | upper }}
  value: {{ $value | quote }}
{{- end }}
{{- if or .Values.kafka.ca.secretName .Values.kafka.ca.configMapName }}
- name: TRIAGED_KAFKA__PROPERTIES__SSL_CA_LOCATION
  value: /etc/triaged-ca/{{ .Values.kafka.ca.key }}
{{- end }}
{{- with .Values.kafka.existingSecret }}
{{- if and .properties (not .name) }}{{ fail "kafka.existingSecret.properties needs kafka.existingSecret.name" }}{{ end }}
{{- $secret := .name }}
{{- range $property, $key := .properties }}
- name: TRIAGED_KAFKA__PROPERTIES__{{ $property | replace "." "_" | upper }}
  valueFrom: { secretKeyRef: { name: {{ $secret | quote }}, key: {{ $key | quote }} } }
{{- end }}
{{- end }}
- name: TRIAGED_CLICKHOUSE__URL
  value: {{ .Values.clickhouse.url | quote }}
- name: TRIAGED_CLICKHOUSE__DATABASE
  value: {{ .Values.clickhouse.database | quote }}
- name: TRIAGED_CLICKHOUSE__USER
  value: {{ .Values.clickhouse.user | quote }}
{{- with .Values.clickhouse.existingSecret }}
{{- if .name }}
- name: TRIAGED_CLICKHOUSE__PASSWORD
  valueFrom: { secretKeyRef: { name: {{ .name | quote }}, key: {{ .key | quote }} } }
{{- end }}
{{- end }}
{{- if .Values.migrations.enabled }}
- name: TRIAGED_CLICKHOUSE__MIGRATE
  value: "false"
{{- end }}
{{- if .Values.roles.escalate.enabled }}
- name: TRIAGED_OUTPUT__ESCALATE
  value: "true"
{{- with .Values.escalation }}
{{- if and (not .encoder) (not .llm.enabled) }}{{ fail "roles.escalate.enabled needs escalation.encoder or escalation.llm.enabled" }}{{ end }}
{{- with .encoder }}
- name: TRIAGED_ESCALATE__ENCODER
  value: {{ . | quote }}
{{- end }}
{{- if .llm.enabled }}
- name: TRIAGED_ESCALATE__LLM__ENABLED
  value: "true"
- name: TRIAGED_ESCALATE__LLM__BASE_URL
  value: {{ .llm.baseUrl | quote }}
- name: TRIAGED_ESCALATE__LLM__MODEL
  value: {{ required "escalation.llm.model" .llm.model | quote }}
{{- if .llm.existingSecret.name }}
- name: TRIAGED_ESCALATE__LLM__API_KEY
  valueFrom: { secretKeyRef: { name: {{ .llm.existingSecret.name | quote }}, key: {{ .llm.existingSecret.key | quote }} } }
{{- end }}
{{- end }}
{{- end }}
{{- end }}
- name: TRIAGED_OPS__LISTEN
  value: "0.0.0.0:9464"
{{- end }}

{{- define "triaged.volumeMounts" -}}
- { name: config, mountPath: /etc/triaged, readOnly: true }
{{- if or .Values.kafka.ca.secretName .Values.kafka.ca.configMapName }}
- { name: kafka-ca, mountPath: /etc/triaged-ca, readOnly: true }
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Without the configuration's, whose ConfigMap differs. */ -}}
{{- define "triaged.volumes" -}}
{{- if .Values.kafka.ca.secretName }}
- name: kafka-ca
  secret: { secretName: {{ .Values.kafka.ca.secretName | quote }} }
{{- else if .Values.kafka.ca.configMapName }}
- name: kafka-ca
  configMap: { name: {{ .Values.kafka.ca.configMapName | quote }} }
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The port of a URL. */ -}}
{{- define "triaged.urlPort" -}}
{{- $authority := regexReplaceAll "^(https?://[^/]+).*$" . "${1}" -}}
{{- include "triaged.ports" (list $authority (ternary "443" "80" (hasPrefix "https:" .))) -}}
{{- end }}

{{- /* The distinct ports of a comma-separated list of addresses; its argument is (list addresses default-port). */ -}}
{{- define "triaged.ports" -}}
{{- $default := index . 1 -}}
{{- $ports := list -}}
{{- range $address := splitList "," (index . 0) -}}
{{- $found := regexFind ":[0-9]+$" (trim $address) -}}
{{- $ports = append $ports (ternary (trimPrefix ":" $found) $default (ne $found "")) -}}
{{- end -}}
{{- $ports | uniq | sortAlpha | join "," -}}
{{- end }}
