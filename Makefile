# One vocabulary for people and CI. `make help` explains it.

MACHINE := $(or $(ARCH),$(shell uname -m))-unknown-linux-gnu
TARGET := $(or $(CARGO_TARGET_DIR),target)
ifneq ($(MACHINE),$(shell uname -m)-unknown-linux-gnu)
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER := aarch64-linux-gnu-gcc
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER := x86_64-linux-gnu-gcc
endif
# Static programs, which say nothing of the machine that built them.
STATIC := -C target-feature=+crt-static -C strip=symbols \
	--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo --remap-path-prefix=$(CURDIR)=/manx
# One set of flags for whatever runs here, so that all share what they depend on.
RELEASE := RUSTFLAGS='$(STATIC)' cargo build --release --target $(MACHINE)
BUILT := $(TARGET)/$(MACHINE)/release
export KEEP

.DEFAULT_GOAL := help
.PHONY: help demo demo-kubernetes cluster-demo cluster-up cluster-down conformance cluster test test-core sim bench-api bench-cni build static image manifest kubernetes setup lint lint-format lint-clippy lint-docs lint-purity lint-licences lint-chart audit clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

demo: setup build ## A small cluster, pods, pings, IPIP and plain BGP (KEEP=1 leaves it up; root)
	@tests/with-ipip tests/demo

demo-kubernetes: setup kubernetes build ## The same on a real kube-apiserver, driven with kubectl (KEEP=1; root, Go)
	@tests/with-ipip tests/demo --kubernetes

cluster-demo: setup cluster build image ## A real Kubernetes, kubelet and containerd too, gets its network by `helm install` (KEEP=1; root, Go)
	@$(BUILT)/lab cluster demo $(if $(filter 1,$(KEEP)),--keep)

cluster-up: setup cluster build image ## Such a cluster, left up to play with
	@$(BUILT)/lab cluster up

cluster-down: ## Takes it down
	@$(BUILT)/lab --lab cluster down

conformance: setup cluster build image ## Kubernetes' own network tests as the judge, in a table (CONFORMANCE='--network ptp', '--compare ptp', '--runs 3', '--add')
	@tests/setup conformance
	@tests/kubernetes/build conformance
	@tests/kubernetes/images/build agnhost
	@$(BUILT)/lab cluster conformance $(CONFORMANCE)

test: setup cluster build image ## All tests (root, Go; the tunnel's in a guest where the kernel has no ipip)
	@tests/bird16
	@tests/run all

test-core: ## Unit, property and simulation tests (no root, no Go)
	@tests/run core

sim: ## Simulated clusters, exactly repeatable (MANX_SIM_SEEDS=0..1000 for more)
	@tests/sim/run seeds

bench-cni: setup $(if $(findstring kubernetes,$(BENCH)),kubernetes) build ## What ADD and DEL cost, beside ptp + host-local (root; BENCH='--datastore kubernetes')
	$(RELEASE) -p manx-bench-cni
	@$(BUILT)/bench-cni $(BENCH)

bench-api: kubernetes ## What agents ask of the API server, for 1, 10 and 1000 nodes (BENCH='--nodes 1,10')
	$(RELEASE) -p manx-bench-api
	@$(BUILT)/bench-api $(BENCH)

build: static ## The agent and the CNI plugin, static as they are in the image, and the lab, for release
	$(RELEASE) -p manx-lab

static:
	@rustc --print target-libdir --target $(MACHINE) | xargs test -d || \
		{ echo "Rust has no $(MACHINE) here: rustup target add $(MACHINE), and install a gcc for it (Debian: gcc-aarch64-linux-gnu)"; exit 1; }
	$(RELEASE) -p manx -p manx-cni
	@.ci/shim $(BUILT)/manx-cni

image: static ## The container image, as an OCI archive in target/image (ARCH=aarch64 with a toolchain for it)
	@rm -rf $(TARGET)/image
	@charts/image/build $(BUILT) $(TARGET)/image
	@charts/image/check $(TARGET)/image/*.oci.tar

manifest: ## The chart as plain manifests for kubectl, in target/chart (CHART='--values FILE')
	@charts/render $(CHART)

kubernetes: ## kube-apiserver, etcd, kubectl and helm for the tests (Go; minutes, the first time)
	@tests/kubernetes/build

cluster: ## All of Kubernetes for the tests, as programs and images: kubelet, kube-proxy, CoreDNS… (Go; minutes, the first time)
	@tests/kubernetes/build cluster
	@tests/kubernetes/images/build

setup:
	@tests/setup

lint: lint-format lint-clippy lint-docs lint-purity lint-licences lint-chart ## Format, clippy, docs, purity, licences, chart

lint-format:
	cargo fmt --all --check

# The second run is for the test targets with `test = false`, which --all-targets leaves out.
lint-clippy:
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --workspace --test '*' -- -D warnings

lint-docs:
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items

lint-purity:
	@.ci/purity

lint-licences:
	@.ci/licences

lint-chart:
	@charts/lint

audit: ## Advisories and the oldest compiler (tools that may be absent)
	@.ci/audit

clean: ## Take down what is left of labs, then remove everything built
	@if [ -x $(BUILT)/lab ]; then $(BUILT)/lab down --all; fi
	cargo clean
