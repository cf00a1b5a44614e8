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
soak:           ## the long ones, and what is lost in 200,000 messages, or webhooks, while everything breaks
	MESSAGE_API_SOAK=1 go test -count=1 -p 1 -timeout 60m -v ./test/soak/... ./test/history/... ./test/webhooks/...
	MESSAGE_API_SOAK=1 go test -count=1 -timeout 20m -v -run '^TestMany' ./store ./subscriptions # a million
bench:          ## ratios beside plain clients and plain Caddy
	@eval "$$(scripts/brokers.sh env)"; unset MQTT_ADDR; go run ./bench # a Mosquitto of its own, that saves nothing
lint:           ## formatting, vet, staticcheck, shellcheck
	@scripts/lint.sh
fmt:
	gofmt -w $$(git ls-files --cached --others --exclude-standard '*.go')
xcaddy:         ## bin/caddy-xcaddy from xcaddy.json
	@scripts/xcaddy.sh
tools:          ## bin/tools
	@scripts/tools.sh
brokers-up:     ## the Apache Kafka, RabbitMQ and Mosquitto that the tests share
	@scripts/brokers.sh up
brokers-down:
	@scripts/brokers.sh down
brokers-status:
	@scripts/brokers.sh status
clean: brokers-down ## everything that was made here; Go's caches stay
	rm -rf bin dist .brokers
