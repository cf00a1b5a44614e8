#!/usr/bin/env bash
# Runs vet and all tests in their short form, with nothing but Go and a C compiler (which the
# race detector needs). What wants Apache Kafka, a browser, or minutes, is skipped here: that is what
# scripts/integration.sh is for.
set -euo pipefail
cd "$(dirname "$0")/.."

unset KAFKA_ADDR KAFKA_SASL_ADDR KAFKA_TLS_ADDR KAFKA_SASL_TLS_ADDR KAFKA_CERTS
export MESSAGE_API_NO_KAFKA=1 MESSAGE_API_NO_CHROMIUM=1
go vet ./...
go test -race -short -timeout 5m "$@" ./...
