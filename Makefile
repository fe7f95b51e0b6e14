# What people do with Tandem. `make help` lists it.

GOLANGCI_VERSION := v2.15.0
BIN              := $(CURDIR)/bin
LINT             := $(BIN)/golangci-lint-$(GOLANGCI_VERSION)

# The programs of a cluster; eventing/devcluster builds them where it is asked to.
PARTS            := ./eventing/cmd/source ./eventing/cmd/ingest ./hack/serve ./hack/nats

# The modules of their own, without those that mainly build other projects' programs.
MODULES = $(filter-out test/realcluster/build/cluster test/realcluster/build/etcd,$(patsubst %/go.mod,%,$(shell git ls-files '*/go.mod')))

# What is built does not depend on the folder of the clone, so that one clone's build cache
# serves the next.
export GOFLAGS := $(filter-out -trimpath,$(shell go env GOFLAGS 2>/dev/null)) -trimpath

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this.
	@echo 'usage: make <target> [ARGS="..."]'
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 15

.PHONY: run
run: ## Run PostgreSQL, NATS and two clusters here; ARGS=--help lists the flags.
	@started=$$(date +%s.%N) && hack/build.sh .tandem/bin ./hack/run $(PARTS) && TANDEM_STARTED=$$started exec .tandem/bin/run $(ARGS)

.PHONY: chat
chat: ## Chat between two clusters, in your browser; ARGS=--help lists the flags.
	@hack/build.sh .tandem/chat/bin $(PARTS) && go build -C hack/chat -mod=mod -buildvcs=false -o $(CURDIR)/.tandem/chat/bin/chat . && exec .tandem/chat/bin/chat $(ARGS)

# Tests wait more than they compute: four of a package run at once, and the modules of
# their own beside those of the root. The package that takes longest comes first. Models of
# one goroutine run without the race detector, as they take ten times as long with it. No
# result comes from the cache (-count=1): tests build programs, of which it does not know.
.PHONY: test
test: ## Run the tests, on real PostgreSQL and real NATS; ARGS go to go test.
	@hack/install.sh cc pgbouncer
	@$(MAKE) --no-print-directory -j2 test-root test-modules

.PHONY: test-root
test-root:
	go test -race -short -count=1 -p 2 -parallel 4 -timeout 12m $(ARGS) ./test/clusters ./eventing/source ./sinkwriter ./test/bench ./test/drill ./eventing/jetstream ./test/func ./...

.PHONY: test-modules
test-modules:
	go test -C test/peers -mod=mod -count=1 -timeout 12m ./...
	go test -short -count=1 -timeout 12m ./eventing/source/internal/inflight
	go test -C hack/chat -mod=mod -race -short -count=1 -timeout 12m ./...
	go test -C hack/images -count=1 -timeout 12m ./...
	go test -C test/config -count=1 -timeout 12m ./...

.PHONY: clusters
clusters: ## Run every test with the processes of whole clusters; make test leaves some out.
	@hack/install.sh cc
	go test -race -timeout 20m $(ARGS) ./test/clusters

.PHONY: func
func: ## Build Knative's func into bin/, and test what it makes of functions.
	@hack/install.sh func cc
	go test -race -timeout 20m $(ARGS) ./test/func

.PHONY: bench
bench: ## Measure sinkwriter, the endpoint and the whole way; ARGS=--quick takes a few minutes.
	go run ./test/bench $(ARGS)

.PHONY: soak
soak: ## Send 1,000,000 events to the real instance over 100 connections; none may hang.
	go run ./test/bench --only '^soak$$' --events 1000000 $(ARGS)

.PHONY: pending
pending: ## Measure the memory of a source with 10,000,000 messages pending; PENDING has another number.
	go run ./test/bench --only '^pending$$' $(if $(PENDING),--pending $(PENDING)) $(ARGS)

.PHONY: conformance
conformance: ## Run CloudEvents' conformance scenarios against the served endpoint.
	@hack/install.sh cc
	cd test/conformance && go test -mod=mod -race -timeout 5m $(ARGS) ./...

.PHONY: chaos
chaos: ## Strike two clusters and see what is left of the truth; SEED, DURATION, PLANT, RUNS.
	go run ./test/chaos $(if $(SEED),--seed $(SEED)) $(if $(DURATION),--duration $(DURATION)) $(if $(PLANT),--plant $(PLANT)) $(if $(RUNS),--runs $(RUNS)) $(ARGS)

.PHONY: drill
drill: ## Take something away from two clusters, give it back, say what it cost; SCENARIO, none: lists them.
	@go run ./test/drill $(ARGS) $(SCENARIO)

.PHONY: chaostest
chaostest: ## Run 15 s of chaos and see that planted faults are found; takes up to ten minutes.
	@hack/install.sh cc
	go test -tags chaos -race -timeout 30m $(ARGS) ./test/chaos ./test/deployment

.PHONY: long
long: ## Run what takes too long for CI, and resume it; ARGS=--list, SEEDS, DURATION, FRESH=1.
	@hack/install.sh cc pgbouncer
	@hack/long.sh $(ARGS)

.PHONY: peers
peers: ## Compare with the same work by hand and with others; ARGS=--quick takes minutes, --help.
	go run -C test/peers -mod=mod . $(ARGS)

.PHONY: lint
lint: $(LINT) ## Look for faults and for what is not in house style.
	$(LINT) run --allow-parallel-runners --build-tags e2e,chaos ./...
	@for module in $(MODULES); do \
		echo "$(LINT) run, in $$module" && \
		(cd $$module && GOFLAGS="$(GOFLAGS) -mod=mod" $(LINT) run --allow-parallel-runners ./...) || exit 1; \
	done
	@$(MAKE) --no-print-directory words

.PHONY: words
words: ## Count the words that house style avoids; ARGS=--update lowers the baseline.
	@go run ./hack/words $(ARGS)

.PHONY: build
build: ## Build the programs of eventing/cmd and hack into bin/.
	go build -o $(BIN)/ ./eventing/cmd/... ./hack/...

.PHONY: images
images: ## Build the images without Docker and push them; REGISTRY=HOST/NAME, none: only build.
	go run -C hack/images . $(if $(REGISTRY),--registry $(REGISTRY) --kustomization $(CURDIR)/config/images/kustomization.yaml) $(ARGS)

.PHONY: e2e
e2e: ## Install into two clusters, do harm, compare: EAST=kubeconfig WEST=kubeconfig, or starts two here (test/realcluster).
	$(if $(EAST)$(WEST),EAST=$(abspath $(EAST)) WEST=$(abspath $(WEST)),test/realcluster/realcluster pair) go test -tags e2e -count=1 -v -timeout 30m $(ARGS) ./test/e2e

.PHONY: realcluster
realcluster: ## Start real Kubernetes clusters with Knative on this machine (Linux, root): ARGS=--help.
	@test/realcluster/realcluster $(ARGS)

.PHONY: clean
clean: ## Remove .tandem/ with everything that was stored, and bin/'s programs.
	@hack/clean.sh .tandem/chat
	@hack/clean.sh
	@rm -f $(filter-out $(LINT) $(BIN)/func,$(wildcard $(BIN)/*))

$(LINT):
	GOBIN=$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(BIN)/golangci-lint $@
