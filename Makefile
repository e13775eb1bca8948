# `make` is what to run before a commit; `make help` lists the rest.

.DEFAULT_GOAL := check
.PHONY: check help test race lint fmt vet tidy examples mutants api bench gate

check: fmt vet lint test ## format, vet, lint and test

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: ## every test of every module; those that need a server skip when it is absent
	go test work

race: ## the same under the race detector, without the long campaigns
	go test -race -short work

lint: ## golangci-lint, built from internal/tools the first time
	.ci/run lint

fmt: ## gofmt, as a check
	.ci/run fmt

vet: ## go vet of every module
	.ci/run vet

tidy: ## build every module by itself; go mod tidy, as a check
	.ci/run modules

examples: ## run every example to its end
	.ci/run examples

mutants: ## apply every planted bug in integration/mutants; a test must catch each
	go test -timeout 120m ./integration/mutants -all -v

api: ## rewrite the golden files of exported names in api/
	go test ./internal/layout -run TestAPI -update

bench: ## benchmarks against the peers, five interleaved rounds, as a table of ratios
	go run ./bench/ratios

gate: ## everything that has to hold before a change lands
	.ci/run
