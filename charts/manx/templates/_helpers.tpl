{{- define "manx.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "manx.selector" . }}
{{- end }}

{{- define "manx.selector" -}}
app.kubernetes.io/name: manx
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "manx.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* What the typed values say in variables, with `env` laid over it: names and texts. */}}
{{- define "manx.variables" -}}
{{- $env := dict "MANX_DATASTORE" "kubernetes" "MANX_CONFIG_REVISION" (.Values.configRevision | default .Release.Revision) -}}
{{- with .Values.pool }}
{{- if .create }}
{{- $_ := set $env "CALICO_IPV4POOL_CIDR" .cidr }}
{{- $_ := set $env "CALICO_IPV4POOL_BLOCK_SIZE" .blockSize }}
{{- $_ := set $env "CALICO_IPV4POOL_IPIP" .ipipMode }}
{{- $_ := set $env "CALICO_IPV4POOL_NAT_OUTGOING" .natOutgoing }}
{{- else }}
{{- $_ := set $env "NO_DEFAULT_POOLS" true }}
{{- end }}
{{- end }}
{{- if not .Values.bgp.enabled }}{{ $_ := set $env "CALICO_NETWORKING_BACKEND" "none" }}{{ end }}
{{- with .Values.cni }}
{{- $_ := set $env "MANX_INSTALL_CNI" .install }}
{{- $_ := set $env "CNI_NET_DIR" .netDir }}
{{- $_ := set $env "CNI_BIN_DIR" .binDir }}
{{- $_ := set $env "CNI_CONF_NAME" .confName }}
{{- $_ := set $env "CNI_MTU" .mtu }}
{{- if .config }}{{ $_ := set $env "CNI_NETWORK_CONFIG" .config }}{{ end }}
{{- end }}
{{- $_ := set $env "FELIX_HEALTHENABLED" true }}
{{- $_ := set $env "FELIX_HEALTHHOST" "localhost" }}
{{- $_ := set $env "FELIX_HEALTHPORT" .Values.health.port }}
{{- with .Values.metrics }}
{{- if .enabled }}
{{- $_ := set $env "FELIX_PROMETHEUSMETRICSENABLED" true }}
{{- $_ := set $env "FELIX_PROMETHEUSMETRICSPORT" .port }}
{{- end }}
{{- end }}
{{- range $name, $value := .Values.env }}{{ $_ := set $env $name $value }}{{ end }}
{{- range $name, $value := $env }}
{{- /* A number of a values file is a float to Helm, which would write a large one with an exponent. */}}
{{- if kindIs "float64" $value }}{{ $value = int64 $value }}{{ end }}
{{ $name }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{- define "manx.environment" -}}
{{- range $name, $value := include "manx.variables" . | fromYaml }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* What Felix' parameters take for true. */}}
{{- define "manx.isTrue" -}}
{{- if has (lower .) (list "true" "1" "yes" "y" "t") }}true{{ end }}
{{- end }}

{{/* How kubelet asks the agent: where `path` is served, or by a command where nothing is. The agent is in the node's network,
     and listens on the node itself. */}}
{{- define "manx.probe" -}}
{{- $env := include "manx.variables" .root | fromYaml }}
{{- if include "manx.isTrue" $env.FELIX_HEALTHENABLED }}
{{- $host := $env.FELIX_HEALTHHOST }}
{{- if has $host (list "" "localhost" "0.0.0.0" "::") }}{{ $host = "127.0.0.1" }}{{ end }}
httpGet: {path: {{ .path }}, host: {{ $host | quote }}, port: {{ int $env.FELIX_HEALTHPORT }}}
{{- else }}
exec: {command: {{ toJson .command }}}
{{- end }}
{{- end }}
