{{- define "weft.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "weft.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "weft.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "weft.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "weft.selectorLabels" -}}
app.kubernetes.io/name: {{ include "weft.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "weft.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "weft.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: weft
{{- end -}}

{{- define "weft.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "weft.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "weft.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "weft.redisSecret" -}}
{{- default (printf "%s-redis" (include "weft.fullname" .)) .Values.redis.existingSecret -}}
{{- end -}}

{{- /* Whether nodes share a Redis. */ -}}
{{- define "weft.onRedis" -}}
{{- if or .Values.redis.url .Values.redis.existingSecret -}}yes{{- end -}}
{{- end -}}

{{- /* The configuration file: what the chart must know stands before what the user says. */ -}}
{{- define "weft.config" -}}
{{- $fixed := dict "listen" "0.0.0.0:8000" "internal_listen" "0.0.0.0:8001" -}}
{{- /* Helm takes every number for a fraction. */ -}}
{{- regexReplaceAll "(?m)(= -?[0-9]+)\\.0$" (toToml (mergeOverwrite (deepCopy .Values.config) $fixed)) "${1}" -}}
{{- end -}}

{{- /* Seconds of a duration such as 45s, 500ms, 1m 30s, 1h or 45. */ -}}
{{- define "weft.seconds" -}}
{{- $sum := 0.0 -}}
{{- $text := . | toString -}}
{{- if regexMatch "^[0-9.]+$" $text -}}
{{- $sum = $text | float64 -}}
{{- else -}}
{{- range regexFindAll "[0-9.]+ *[a-z]+" $text -1 -}}
{{- $number := regexFind "[0-9.]+" . | float64 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- if has $unit (list "ms" "msec") -}}{{- $sum = addf $sum (divf $number 1000.0) -}}
{{- else if hasPrefix "h" $unit -}}{{- $sum = addf $sum (mulf $number 3600.0) -}}
{{- else if hasPrefix "d" $unit -}}{{- $sum = addf $sum (mulf $number 86400.0) -}}
{{- else if hasPrefix "m" $unit -}}{{- $sum = addf $sum (mulf $number 60.0) -}}
{{- else -}}{{- $sum = addf $sum $number -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- ceil $sum | int -}}
{{- end -}}
