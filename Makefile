# What each target does stands in the head of its script.

.DEFAULT_GOAL := build
.PHONY: build run test unit integration soak bench lint fmt xcaddy tools brokers-up brokers-down brokers-status clean

build:          ## bin/caddy
	@scripts/build.sh
run:            ## the quick start on port 8080, without a broker
	@scripts/run.sh
test:           ## all tests, with everything they need
	@scripts/test.sh
unit:           ## the tests that need no broker
	@scripts/preflight.sh go
	@scripts/unit.sh
integration:    ## the tests with the brokers that the environment names
	@scripts/integration.sh
soak:           ## the long ones
	MESSAGE_API_SOAK=1 go test -count=1 -timeout 60m -v ./test/soak/...
bench:          ## ratios beside plain clients and plain Caddy
	@if scripts/kafka.sh status >/dev/null 2>&1; then eval "$$(scripts/kafka.sh env)"; fi; go run ./bench
lint:           ## formatting, vet, staticcheck, shellcheck
	@scripts/lint.sh
fmt:
	gofmt -w $$(git ls-files --cached --others --exclude-standard '*.go')
xcaddy:         ## bin/caddy-xcaddy from xcaddy.json
	@scripts/xcaddy.sh
tools:          ## bin/tools
	@scripts/tools.sh
brokers-up:     ## the Apache Kafka that the tests share
	@scripts/kafka.sh up
brokers-down:
	@scripts/kafka.sh down
brokers-status:
	@scripts/kafka.sh status
clean: brokers-down ## everything that was made here; Go's caches stay
	rm -rf bin dist .brokers
