#!/usr/bin/env bash
# Runs vet and all tests that need nothing but Go and a C compiler (for the race detector).
# Tests that want an Apache Kafka of their own are skipped: scripts/integration.sh runs them.
set -euo pipefail
cd "$(dirname "$0")/.."

unset KAFKA_ADDR KAFKA_SASL_ADDR KAFKA_TLS_ADDR KAFKA_SASL_TLS_ADDR KAFKA_CERTS
export MESSAGE_API_NO_KAFKA=1
go vet ./...
go test -race -timeout 5m "$@" ./...
