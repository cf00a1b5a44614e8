#!/usr/bin/env bash
# Runs all tests in their short form, with nothing but Go and a C compiler (which the
# race detector needs). What wants a broker, a browser, or minutes, is skipped here: that is what
# scripts/integration.sh is for.
set -euo pipefail
cd "$(dirname "$0")/.."

unset KAFKA_ADDR KAFKA_SASL_ADDR KAFKA_TLS_ADDR KAFKA_SASL_TLS_ADDR KAFKA_CERTS
unset RABBITMQ_ADDR RABBITMQ_TLS_ADDR RABBITMQ_API RABBITMQ_CERTS
unset MQTT_ADDR MQTT_TLS_ADDR MQTT_MTLS_ADDR MQTT_WS_ADDR MQTT_WSS_ADDR MQTT_AUTH_ADDR MQTT_CERTS
export GORACE=atexit_sleep_ms=0 # the race detector waits a second at the end of each package
export MESSAGE_API_NO_KAFKA=1 MESSAGE_API_NO_RABBITMQ=1 MESSAGE_API_NO_MOSQUITTO=1 MESSAGE_API_NO_REDIS=1 MESSAGE_API_NO_CHROMIUM=1
export MESSAGE_API_NO_PYTHON=1 MESSAGE_API_NO_NODE=1
# Left out are the packages that say nothing, or next to nothing, in short. The longest come
# first, or the others would wait for them at the end; 5 side by side, because many of them wait.
mapfile -t packages < <(go list ./... | grep -Ev '/(bench/(mqtt|rabbitmq)|test/(browser|cluster|examples|history|patience|redisstorage|soak|webhooks))$')
go test -race -short -p 5 -timeout 5m "$@" ./test/e2e ./endpoints/kafka ./endpoints/servicebus ./endpoints/mqtt5 \
	./endpoints/solace "${packages[@]}"
