# Gatehouse: what one does with this repository. `make` lists it. Nothing here installs anything; .ci/run does, for a bare machine.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
NESTED := $(patsubst %/go.mod,%,$(wildcard tools/go.mod tools/*/go.mod bench/go.mod test/oidc/go.mod))
# What needs a cluster, and so is tested by targets of its own.
CLUSTERED := test/cluster test/conformance
LINT := .cache/bin/golangci-lint
CONTROLLER_GEN := .cache/bin/controller-gen
HELM := .cache/bin/helm
# The race detector needs a C compiler; tests do not.
RACE := $(shell command -v $$($(GO) env CC) >/dev/null && echo -race)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/gatehouse (static, the version stamped in)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/gatehouse ./cmd/gatehouse

IMAGE_NAME ?= gatehouse
PLATFORMS ?= linux/amd64 linux/arm64
# All times in the image; the same commit gives the same bytes.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

.PHONY: image
image: ## Build bin/image, a container image without a container engine (PUSH=REGISTRY/NAME:TAG to push it)
	for p in $(PLATFORMS); do CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -trimpath -buildvcs=false \
	  -ldflags '$(LDFLAGS)' -o .cache/image/$$p/gatehouse ./cmd/gatehouse; done
	cd tools/image && $(GO) run . -out ../../bin/image -name '$(IMAGE_NAME)' -version '$(VERSION)' -push '$(PUSH)' \
	  -revision "$$(git rev-parse HEAD 2>/dev/null)" -epoch '$(SOURCE_DATE_EPOCH)' \
	  $(foreach p,$(PLATFORMS),$(p)=../../.cache/image/$(p)/gatehouse)

.PHONY: demo
demo: build ## Run Gatehouse on examples/shop with sample backends, until Ctrl-C
	CGO_ENABLED=0 $(GO) build -o bin/shop-backend ./examples/shop/backend
	CGO_ENABLED=0 $(GO) build -o bin/shop-demo ./examples/shop/demo
	exec bin/shop-demo

.PHONY: test
test: ## Run all tests; needs only Go (ARGS='-run Name' to choose)
	@test -n '$(RACE)' || echo 'no C compiler: the tests run without the race detector'
	$(GO) test $(RACE) $(ARGS) -json ./... | $(GO) -C tools run ./testlog
	@# The race detector allocates: what is held to a number of allocations runs without it too.
	$(GO) test -run Alloc -json ./internal/... | $(GO) -C tools run ./testlog
	@for m in $(NESTED); do echo "module $$m"; \
	  (cd $$m && $(GO) test $(RACE) $(ARGS) -json ./...) | $(GO) -C tools run ./testlog; done

# A lab holds one cluster, and two cores hold one lab: one package after the other.
.PHONY: test-cluster
test-cluster: $(HELM) ## Run the tests that need a cluster, in one they make (ARGS='-run Name' to choose)
	(cd test/cluster && $(GO) test -count=1 -p 1 -timeout 30m $(ARGS) -json ./...) | $(GO) -C tools run ./testlog

.PHONY: conformance
conformance: $(HELM) ## Run the Gateway API's conformance tests; the report goes to bin/conformance.yaml
	mkdir -p bin
	(cd test/conformance && $(GO) test -count=1 -timeout 60m -json . -args -version='$(VERSION)' \
	  -report-output='$(CURDIR)/bin/conformance.yaml' $(ARGS)) | $(GO) -C tools run ./testlog

.PHONY: bench-cluster
bench-cluster: $(HELM) ## Measure how Gatehouse follows a cluster (ARGS='-out FILE')
	cd test/cluster && $(GO) run ./cmd/scale -version '$(VERSION)' $(ARGS)

.PHONY: cluster
cluster: $(HELM) ## Run a cluster with Gatehouse in it, until Ctrl-C; kubectl reaches it from here
	cd test/cluster && $(GO) run ./cmd/cluster -gateway-api standard -gatehouse $(ARGS)

.PHONY: check
check: check-format check-generate check-vet check-lint check-modules ## Check format, vet, lint, architecture and modules
	$(GO) test -count=1 .

.PHONY: check-format
check-format:
	@out=$$(gofmt -l .); test -z "$$out" || { echo "not formatted; run gofmt -w on:"; echo "$$out"; exit 1; }

.PHONY: check-vet
check-vet:
	$(GO) vet ./...
	@for m in $(NESTED) $(CLUSTERED); do echo "$(GO) vet $$m"; (cd $$m && $(GO) vet ./...); done

.PHONY: check-lint
check-lint: $(LINT)
	$(LINT) run ./...
	@for m in $(NESTED) $(CLUSTERED); do echo "$(LINT) run $$m"; (cd $$m && $(CURDIR)/$(LINT) run --config $(CURDIR)/.golangci.yml ./...); done

# go.mod and go.sum list what is used, no more and no less. tools only pins programs; to check it downloads half the world.
.PHONY: check-modules
check-modules:
	@for m in . $(filter-out tools,$(NESTED)) $(CLUSTERED); do (cd $$m && $(GO) mod tidy -diff) || { echo "$$m/go.mod is stale: run go mod tidy there"; exit 1; }; done

# Built once for a version of tools/go.mod; it takes some minutes.
$(LINT): tools/go.mod tools/go.sum
	cd tools && CGO_ENABLED=0 $(GO) build -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

# generated DIR writes what is made from api/v1alpha1 under DIR: deep copies, and the CRDs of the chart.
generated = $(CONTROLLER_GEN) paths=./api/... object output:object:dir=$(1)/api/v1alpha1 \
	crd:omitToolVersion=true,headerFile=tools/generate/header.txt output:crd:dir=$(1)/charts/gatehouse/crds

.PHONY: generate
generate: $(CONTROLLER_GEN) ## Make deep copies and CRDs from the types in api/
	rm -f charts/gatehouse/crds/*.yaml
	$(call generated,.)

.PHONY: check-generate
check-generate: $(CONTROLLER_GEN)
	@out=$$(mktemp -d); trap "rm -rf $$out" EXIT; $(call generated,$$out); \
	diff -u api/v1alpha1/zz_generated.deepcopy.go $$out/api/v1alpha1/zz_generated.deepcopy.go && \
	diff -ru charts/gatehouse/crds $$out/charts/gatehouse/crds || { echo 'generated files are stale: run make generate'; exit 1; }

# Tests of the chart (tools/chart) and in clusters run it.
$(HELM): tools/chart/go.mod tools/chart/go.sum
	cd tools/chart && CGO_ENABLED=0 $(GO) build -o ../../$@ helm.sh/helm/v4/cmd/helm

$(CONTROLLER_GEN): tools/generate/go.mod tools/generate/go.sum
	cd tools/generate && CGO_ENABLED=0 $(GO) build -o ../../$@ sigs.k8s.io/controller-tools/cmd/controller-gen

.PHONY: golden
golden: ## Accept what the code now prints as the tests' golden files; read the diff
	@pkgs=$$(grep -rl --include='*_test.go' 'flag.Bool("update"' api cmd internal | xargs -r -n1 dirname | sort -u | sed 's,^,./,'); \
	test -n "$$pkgs" || { echo 'no test has golden files'; exit 1; }; \
	$(GO) test -count=1 $$pkgs -update; git --no-pager diff --stat

.PHONY: bench
bench: build ## Measure Gatehouse beside nginx, HAProxy, Caddy and ReverseProxy (ARGS=-short for a smoke run)
	cd bench && $(GO) run . -gatehouse ../bin/gatehouse $(ARGS)

.PHONY: soak
soak: build ## Run Gatehouse for 10 minutes under load and change: does anything fail, or grow? (ARGS=-short for a smoke run)
	cd bench && $(GO) run ./soak -gatehouse ../bin/gatehouse $(ARGS)
