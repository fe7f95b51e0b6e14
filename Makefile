# The tasks of users and developers. `make help` lists them.

GOLANGCI_VERSION := v2.15.0
BIN              := $(CURDIR)/bin
LINT             := $(BIN)/golangci-lint-$(GOLANGCI_VERSION)

# The programs of a cluster; eventing/devcluster builds them if configured to.
PARTS            := ./eventing/cmd/source ./eventing/cmd/ingest ./hack/serve ./hack/nats

# The separate modules, without those that mainly build other projects' programs.
MODULES = $(filter-out test/realcluster/build/cluster test/realcluster/build/etcd,$(patsubst %/go.mod,%,$(shell git ls-files '*/go.mod')))

# Builds do not depend on the folder of the clone, so that the build cache of one clone also
# serves others.
export GOFLAGS := $(filter-out -trimpath,$(shell go env GOFLAGS 2>/dev/null)) -trimpath

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list.
	@echo 'usage: make <target> [ARGS="..."]'
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 15

.PHONY: run
run: ## Run PostgreSQL, NATS and two clusters here; ARGS=--help lists the flags.
	@started=$$(date +%s.%N) && hack/build.sh .tandem/bin ./hack/run $(PARTS) && TANDEM_STARTED=$$started exec .tandem/bin/run $(ARGS)

.PHONY: chat
chat: ## Run a chat between two clusters, in your browser; ARGS=--help lists the flags.
	@hack/build.sh .tandem/chat/bin $(PARTS) && go build -C hack/chat -mod=mod -buildvcs=false -o $(CURDIR)/.tandem/chat/bin/chat . && exec .tandem/chat/bin/chat $(ARGS)

# Tests wait more than they compute, so three packages and four tests of each run in parallel,
# and the separate modules in parallel with the root. The slowest packages come first.
# Programs that tests build are linked without debug information (-w), like test binaries.
# Models that use one goroutine run without the race detector, which makes them ten times
# slower. The test cache is off (-count=1), because it does not know the programs that tests
# build.
.PHONY: test
test: ## Run the tests, on real PostgreSQL and real NATS; ARGS are passed to go test.
	@hack/install.sh cc pgbouncer
	@$(MAKE) --no-print-directory -j2 test-root test-modules

test-root test-modules: export GOFLAGS := $(GOFLAGS) -ldflags=-w

.PHONY: test-root
test-root:
	go test -race -short -count=1 -p 3 -parallel 4 -timeout 12m $(ARGS) ./test/clusters ./eventing/source ./sinkwriter ./test/bench ./test/func ./test/drill ./eventing/cmd/source ./eventing/jetstream ./hack/run ./...

.PHONY: test-modules
test-modules:
	go test -C test/peers -mod=mod -count=1 -timeout 12m ./...
	go test -short -count=1 -timeout 12m ./eventing/source/internal/inflight
	go test -C hack/chat -mod=mod -race -short -count=1 -timeout 12m ./...
	go test -C hack/images -count=1 -timeout 12m ./...
	go test -C test/config -count=1 -timeout 12m ./...

.PHONY: clusters
clusters: ## Run every test with the processes of whole clusters; make test skips some.
	@hack/install.sh cc
	go test -race -timeout 20m $(ARGS) ./test/clusters

.PHONY: func
func: ## Build Knative's func into bin/, and test the programs that it builds from functions.
	@hack/install.sh func cc
	go test -race -timeout 20m $(ARGS) ./test/func

.PHONY: bench
bench: ## Measure sinkwriter, the endpoint and the whole path; ARGS=--quick takes a few minutes.
	go run ./test/bench $(ARGS)

.PHONY: soak
soak: ## Send 1,000,000 events to the real instance over 100 connections; no request may hang.
	go run ./test/bench --only '^soak$$' --events 1000000 $(ARGS)

.PHONY: pending
pending: ## Measure the memory of a source with 10,000,000 messages pending; PENDING sets the number.
	go run ./test/bench --only '^pending$$' $(if $(PENDING),--pending $(PENDING)) $(ARGS)

.PHONY: conformance
conformance: ## Run CloudEvents' conformance scenarios against the served endpoint.
	@hack/install.sh cc
	cd test/conformance && go test -mod=mod -race -timeout 5m $(ARGS) ./...

.PHONY: chaos
chaos: ## Inject faults into two clusters and check the results; SEED, DURATION, PLANT, RUNS.
	go run ./test/chaos $(if $(SEED),--seed $(SEED)) $(if $(DURATION),--duration $(DURATION)) $(if $(PLANT),--plant $(PLANT)) $(if $(RUNS),--runs $(RUNS)) $(ARGS)

.PHONY: drill
drill: ## Run a failure drill and report the effect; SCENARIO selects it, without it lists all.
	@go run ./test/drill $(ARGS) $(SCENARIO)

.PHONY: chaostest
chaostest: ## Run 15 s of chaos and check that planted faults are detected; takes up to ten minutes.
	@hack/install.sh cc
	go test -tags chaos -race -timeout 30m $(ARGS) ./test/chaos ./test/deployment

.PHONY: long
long: ## Run the tests that take too long for CI; can be resumed; ARGS=--list, SEEDS, DURATION, FRESH=1.
	@hack/install.sh cc pgbouncer
	@hack/long.sh $(ARGS)

.PHONY: peers
peers: ## Compare with hand-written consumers and other libraries; ARGS=--quick takes minutes, --help.
	go run -C test/peers -mod=mod . $(ARGS)

.PHONY: lint
lint: $(LINT) ## Check for faults and house style.
	$(LINT) run --allow-parallel-runners --build-tags e2e,chaos ./...
	@for module in $(MODULES); do \
		echo "$(LINT) run, in $$module" && \
		(cd $$module && GOFLAGS="$(GOFLAGS) -mod=mod" $(LINT) run --allow-parallel-runners ./...) || exit 1; \
	done
	@$(MAKE) --no-print-directory words

.PHONY: words
words: ## Count the words that house style avoids; fails if a file or all files together exceed the bounds.
	@go run ./hack/words

.PHONY: build
build: ## Build the programs of eventing/cmd and hack into bin/.
	go build -o $(BIN)/ ./eventing/cmd/... ./hack/...

.PHONY: images
images: ## Build the images without Docker and push them to REGISTRY=HOST/NAME; without it only build.
	go run -C hack/images . $(if $(REGISTRY),--registry $(REGISTRY) --kustomization $(CURDIR)/config/images/kustomization.yaml) $(ARGS)

.PHONY: e2e
e2e: ## Test in two Kubernetes clusters: EAST=kubeconfig WEST=kubeconfig, or starts two here (test/realcluster).
	$(if $(EAST)$(WEST),EAST=$(abspath $(EAST)) WEST=$(abspath $(WEST)),test/realcluster/realcluster pair) go test -tags e2e -count=1 -v -timeout 30m $(ARGS) ./test/e2e

.PHONY: realcluster
realcluster: ## Start real Kubernetes clusters with Knative on this machine (Linux, root); ARGS=--help.
	@test/realcluster/realcluster $(ARGS)

.PHONY: clean
clean: ## Remove .tandem/ with all its data, and the programs in bin/.
	@hack/clean.sh .tandem/chat
	@hack/clean.sh
	@rm -f $(filter-out $(LINT) $(BIN)/func,$(wildcard $(BIN)/*))

$(LINT):
	GOBIN=$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(BIN)/golangci-lint $@
