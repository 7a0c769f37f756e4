# "make" prints what there is. Everything that is built or downloaded goes to
# bin/, Go's caches and $(CACHE); nothing else on the machine is changed, except
# by "make deps" and "make dist-deps", which install what real runtimes and the
# tests of packages need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO       ?= go
FUZZTIME ?= 30s
CACHE    ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cri-proxy

# The rig with the real runtimes.
RIG         := test/real
DEPS        := sh $(RIG)/deps.sh
INTEGRATION := cd $(RIG) && $(GO) test ./... -count=1 -timeout 20m
E2E         := cd $(RIG) && E2E=1 $(GO) test ./e2e -count=1 -v -parallel 6 -timeout 60m
DEMO        := cd $(RIG) && $(GO) run ./cmd/demo
CONFORMANCE := cd $(RIG) && $(GO) run ./cmd/conformance
MONITORING  := cd $(RIG) && MONITORING=1 $(GO) test . -run '^TestMonitoring$$' -count=1 -v -timeout 20m
PODSTART    := cd $(RIG) && $(GO) run ./cmd/podstart

# The modules that hold our own code; the others in test/tools pin other people's.
MODULES := . $(patsubst %/go.mod,%,$(wildcard test/real/go.mod test/bench/go.mod test/tools/sbom/go.mod))

LINT_MODULE  := test/tools/golangci-lint
LINT_PACKAGE := github.com/golangci/golangci-lint/v2
LINT_VERSION := $(shell sed -n 's,.*$(LINT_PACKAGE) \(v[^ ]*\).*,\1,p' $(LINT_MODULE)/go.mod)
LINT         := $(CACHE)/golangci-lint/$(LINT_VERSION)/golangci-lint

# Where "make dist" packs, what packs it, from its Go module, what lists the
# modules, and the program of this machine, which writes its manual and completion.
DIST     := bin/dist
NFPM     := bin/tools/nfpm
SBOM     := bin/tools/sbom
NATIVE   := bin/tools/cri-proxy

# A local cluster whose nodes run cri-proxy. Its image needs the binary static,
# which "build" makes it.
KIND_MODULE  := test/tools/kind
KIND_VERSION := $(shell sed -n 's,.*sigs.k8s.io/kind \(v[^ ]*\).*,\1,p' $(KIND_MODULE)/go.mod)
KIND_BINARY  := $(CACHE)/kind/$(KIND_VERSION)/kind
KIND         ?= $(KIND_BINARY)
CLUSTER      ?= cri-proxy
KIND_SH      := PROXY=$(CURDIR)/bin/cri-proxy KIND=$(KIND) CLUSTER=$(CLUSTER) BASE=$(BASE) CONFIG=$(CONFIG) bash configs/kind/kind.sh
E2E_KIND     := cd $(RIG) && E2E_KIND=1 $(GO) test ./kind -count=1 -v -timeout 60m

.PHONY: help build lint reference test unit integration e2e deps demo bench podstart conformance faults monitoring fuzz dist dist-deps clean kind-up kind-down e2e-kind

help: ## print this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Without gRPC's trace pages, which nothing here serves, no package looks methods up
# by a name that is not constant, and the linker leaves out all that are not called.
build: ## build bin/cri-proxy, static
	CGO_ENABLED=0 $(GO) build -tags grpcnotrace -trimpath -buildvcs=auto -ldflags '-s -w' -o bin/cri-proxy ./cmd/cri-proxy

lint: $(LINT) ## check the code of every module
	@failed=; \
	for module in $(MODULES); do \
		echo "lint $$module"; \
		for check in "$(GO) mod tidy -diff" "$(GO) vet ./..." "$(LINT) run ./..."; do \
			(cd $$module && $$check) || failed+=" $$module: $$(basename $${check%% *}) $${check#* };"; \
		done; \
	done; \
	unformatted=$$(gofmt -l .); \
	[ -z "$$unformatted" ] || failed+=" gofmt: $$unformatted"; \
	[ -z "$$failed" ] || { echo "lint failed:$$failed" >&2; exit 1; }

# Built once for a version, and shared by all clones on the machine. The rename
# keeps a build that was interrupted from being taken for a finished one.
$(LINT):
	@echo "building golangci-lint $(LINT_VERSION), once; this takes some minutes"
	@mkdir -p $(@D)
	cd $(LINT_MODULE) && $(GO) build -trimpath -ldflags '-s -w -X main.version=$(LINT_VERSION)' -o $@.$$$$ $(LINT_PACKAGE)/cmd/golangci-lint && mv $@.$$$$ $@

reference: ## renew the list of keys in docs/configuration.md, from the types and configs/config.toml
	$(GO) test -count=1 -run '^TestReference$$' ./configs -update

test: unit ## run the unit tests and, as root on Linux, the integration tests
	@if [ "$$(uname -s)" != Linux ] || [ "$$(id -u)" != 0 ]; then \
		echo "LEFT OUT: the integration tests against real containerds ($(RIG)); they need root on Linux: sudo make integration"; \
	else \
		$(MAKE) --no-print-directory integration; \
	fi

unit: ## run the unit tests with the race detector
	$(GO) test -race ./...
	cd test/bench && $(GO) test -race ./...
	cd test/tools/prometheus && $(GO) test ./...

integration: deps ## run the tests against real runtimes (root)
	$(INTEGRATION)

# In parts: make e2e E2EFLAGS="-run 'TestCluster/(shipped|node)'"; shorter: E2EFLAGS=-short.
e2e: deps ## run the tests on a real cluster; builds Kubernetes, and leaves its logs of a failure in bin/e2e (root)
	@mkdir -p bin/e2e
	E2E_LOGS=$(CURDIR)/bin/e2e && export E2E_LOGS && $(E2E) $(E2EFLAGS)

kind-up: build $(filter $(KIND_BINARY),$(KIND)) ## start a kind cluster behind cri-proxy: CLUSTER=name, BASE=node-image, CONFIG=file (Docker)
	$(KIND_SH) up

kind-down: $(filter $(KIND_BINARY),$(KIND)) ## end that cluster: CLUSTER=name (Docker)
	$(KIND_SH) down

$(KIND_BINARY):
	@mkdir -p $(@D)
	cd $(KIND_MODULE) && CGO_ENABLED=0 $(GO) build -trimpath -o $@.$$$$ sigs.k8s.io/kind && mv $@.$$$$ $@

e2e-kind: ## run kind-up without a registry and test the cluster, and an installation on a plain node; builds Kubernetes (root)
	@[ "$$(id -u)" = 0 ] || { echo "e2e-kind starts a Docker daemon and real nodes, which needs root: sudo make e2e-kind" >&2; exit 1; }
	$(DEPS) kind
	@$(MAKE) --no-print-directory $(KIND_BINARY)
	$(E2E_KIND) $(E2EFLAGS)

deps: ## install what the real runtimes need (root)
	$(DEPS)

demo: deps ## show the main job with two real containerds (root)
	$(DEMO)

bench: build ## measure what cri-proxy costs, and renew docs/performance.md
	cd test/bench && $(GO) build -trimpath -o ../../bin/bench . && ../../bin/bench -proxy ../../bin/cri-proxy -json ../../bin/bench.json -docs ../../docs/performance.md $(BENCHFLAGS)

podstart: deps ## measure the start of a pod on a real containerd, and renew its part of docs/performance.md (root)
	$(PODSTART) $(PODSTARTFLAGS)

conformance: ## run critest on every combination, directly and proxied (root)
	$(DEPS) conformance
	$(CONFORMANCE)

# The rows come from the tests themselves; what failed is in the table as well.
FAULTS := '^Test(Faults|FaultsUnderLoad|BothClaim|HugeList|EventsGoOn|Growth|HangingDoesNotSlow|ProcessUnderLoad|HooksKilled|ReloadUnderLoad)$$'
faults: ## let backends and the proxy fail in every way, and renew docs/faults.md
	@mkdir -p bin && rm -f bin/faults.rows
	@failed=0; export FAULTS_TABLE=$(CURDIR)/bin/faults.rows; \
	$(GO) test -race -count=1 -timeout 10m -run $(FAULTS) ./cmd/cri-proxy || failed=1; \
	if [ "$$(id -u)" = 0 ]; then $(DEPS) && (cd $(RIG) && $(GO) test -count=1 -timeout 10m -run $(FAULTS) .) || failed=1; \
	else echo "LEFT OUT: the faults of real containerds; they need root: sudo make faults"; fi; \
	{ sed '/^<!-- begin/q' docs/faults.md; \
	  printf '\n`make faults`, %s, %s\n\n' "$$(date -u +%F)" "$$($(GO) env GOVERSION)"; \
	  printf '| on | fault | what callers saw | what held | ok |\n|---|---|---|---|---|\n'; cat "$$FAULTS_TABLE"; \
	  printf '\n'; sed -n '/^<!-- end/,$$p' docs/faults.md; } > bin/faults.md && mv bin/faults.md docs/faults.md; \
	exit $$failed

monitoring: deps ## run alerts, dashboard and docs/monitoring.md in a real Prometheus, which it builds (root)
	$(MONITORING)

fuzz: ## fuzz every parser for FUZZTIME each
	@for package in $$($(GO) list ./...); do \
		targets=$$($(GO) test -run='^$$' -list='^Fuzz' $$package); \
		for target in $$(grep '^Fuzz' <<< "$$targets" || true); do \
			echo "fuzz $$package $$target"; \
			$(GO) test -run='^$$' -fuzz="^$$target$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=10x $$package; \
		done; \
	done

# Equal commits give equal files: times are the commit's, and neither the umask nor
# the locale matters. GOARCH=arm64 packs for another machine. The tests print as
# they go when no package is named.
dist: export GOARCH := $(or $(GOARCH),$(shell $(GO) env GOARCH))
dist: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
dist: export LC_ALL := C
dist: build $(NFPM) ## make packages, with checksums and an SBOM, in bin/dist, for GOARCH
	GOARCH= CGO_ENABLED=0 $(GO) build -trimpath -o $(NATIVE) ./cmd/cri-proxy
	cd test/tools/sbom && GOARCH= $(GO) build -trimpath -o $(CURDIR)/$(SBOM) .
	rm -rf $(DIST) && mkdir -p $(DIST)/tree/completion
	$(NATIVE) man $(DIST)/tree/man && gzip -9n $(DIST)/tree/man/*.1
	for shell in bash fish zsh; do $(NATIVE) completion $$shell > $(DIST)/tree/completion/$$shell; done
	VERSION=$$($(GO) version -m bin/cri-proxy | awk '$$1 == "mod" { print $$3 == "(devel)" ? "v0.0.0-devel" : $$3 }'); export VERSION; \
	for packager in deb rpm; do $(NFPM) package --config configs/package/nfpm.yaml --packager $$packager --target $(DIST)/; done; \
	tar --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mode=a=rX,u+w --mtime=@$$SOURCE_DATE_EPOCH \
		-cf - -C bin cri-proxy -C .. LICENSE README.md configs/config.toml configs/systemd \
		| gzip -9n > $(DIST)/cri-proxy_$${VERSION#v}_linux_$$GOARCH.tar.gz; \
	$(SBOM) bin/cri-proxy > $(DIST)/cri-proxy_$${VERSION#v}_linux_$$GOARCH.cdx.json
	rm -rf $(DIST)/tree
	cd $(DIST) && sha256sum -- * > SHA256SUMS
	for module in nfpm sbom; do (cd test/tools/$$module && DIST=$(CURDIR)/$(DIST) GOARCH= $(GO) test -count=1 -timeout 10m); done
	@cat $(DIST)/SHA256SUMS

dist-deps: ## install what dist tests the packages with (root)
	$(DEPS) dist

$(NFPM): test/tools/nfpm/go.mod
	cd test/tools/nfpm && GOARCH= $(GO) build -trimpath -o $(CURDIR)/$@ github.com/goreleaser/nfpm/v2/cmd/nfpm

clean: ## remove what was built here
	rm -rf bin
