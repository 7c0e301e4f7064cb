# Everything a developer or a CI machine does with this repository.
# `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

IMAGE       ?= davit.dev/davit:$(VERSION)
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
DAVIT_CACHE ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/davit
export DAVIT_CACHE

GOLANGCI_VERSION   := v2.15.0
GOFUMPT_VERSION    := v0.12.0
GOVULN_VERSION     := v1.9.0
CONTROLLER_GEN     := go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.19.0
TOOLS              := $(DAVIT_CACHE)/tools
GOLANGCI           := $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint
GOFUMPT            := $(TOOLS)/gofumpt-$(GOFUMPT_VERSION)/gofumpt
GOVULN             := $(TOOLS)/govulncheck-$(GOVULN_VERSION)/govulncheck

LDFLAGS := -s -w -X davit.dev/davit/internal/version.version=$(VERSION)
GOBUILD := CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)"

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: demo
demo: ## protect a real application, lose its site, run it elsewhere (root, Debian 12)
	@hack/prepare
	@cd demo && go run . $(if $(filter-out 0 no false,$(KEEP)),--keep) $(if $(filter-out 0 no false,$(MOVES)),--moves)

.PHONY: demo-down
demo-down: ## remove every process, mount, namespace and interface of the demo
	@hack/prepare go
	@cd demo && go run . --down

.PHONY: test
test: ## unit tests, then the tests on real clusters
	@hack/prepare
	@hack/test once
	@hack/test bed

.PHONY: unit
unit: ## unit tests only
	@hack/prepare go
	@hack/test unit

.PHONY: race
race: ## unit tests of what runs at once, with the race detector
	@hack/test race

.PHONY: bed
bed: ## tests on real clusters only
	@hack/prepare
	@hack/test bed

.PHONY: browser
browser: ## the console's pages in Chromium; DAVIT_SCREENSHOTS=DIR keeps pictures of them
	@hack/prepare
	@cd demo && DAVIT_CI=1 go test ./browser -count=1

.PHONY: soak
soak: ## the long and the huge variants of the tests
	@hack/prepare
	@hack/fuzz 200000
	@hack/test soak
	@DAVIT_SOAK=1 DAVIT_APPS=all hack/test bed
	@hack/bench --enforce all --secrets --objects 31000 --captured 300000 --parts small,capture,restore,existing,volume,files,crowd

.PHONY: bench
bench: ## benchmarks; every figure is a ratio against something measured in the same run
	@hack/prepare
	@hack/bench

.PHONY: build
build: bin/davit ## build the davit binary into bin/

.PHONY: bin/davit
bin/davit:
	@hack/prepare go
	@mkdir -p bin
	@$(GOBUILD) -o bin/davit ./cmd/davit
	@ln -sf davit bin/kubectl-davit

.PHONY: image
image: bin/davit ## build the container image as dist/davit-image.tar (no Docker needed)
	@mkdir -p dist
	@go run ./build/image --binary bin/davit --tag $(IMAGE) --output dist/davit-image.tar

.PHONY: generate
generate: ## regenerate deep copies and CRDs
	@$(CONTROLLER_GEN) object paths=./api/...
	@$(CONTROLLER_GEN) crd:maxDescLen=0 paths=./api/... output:crd:dir=config/crd

.PHONY: lint
lint: $(GOLANGCI) $(GOFUMPT) ## linters, formatting, layout and generated files up to date
	@hack/lint "$(GOLANGCI)" "$(GOFUMPT)"

.PHONY: vuln
vuln: $(GOVULN) ## known vulnerabilities, where the database can be reached
	@$(GOVULN) ./... || [ "$$?" != 3 ]

$(GOLANGCI):
	@echo "building golangci-lint $(GOLANGCI_VERSION) (once)"
	@GOBIN=$(@D) GOFLAGS= go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

$(GOFUMPT):
	@GOBIN=$(@D) GOFLAGS= go install mvdan.cc/gofumpt@$(GOFUMPT_VERSION)

$(GOVULN):
	@GOBIN=$(@D) GOFLAGS= go install golang.org/x/vuln/cmd/govulncheck@$(GOVULN_VERSION)
