# Two commands matter: `make boot` and `make test`. Both set up everything they need; see README.md.
# Everything lands in .venv and .cache; `make clean` removes both.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
JOBS ?= 2
CHECKED := src tests bench tools
TYPED_FOR := 3.11 3.12 3.13 3.14
COVERED := abi kernel plan build
MUTATED := kernel

# What `make boot` types.
BOOT ?= --engine emulator --cmdline 'earlyprintk=xen console=hvc0'
KERNEL ?=

.PHONY: help setup boot specimens lint types test test-more test-loaders docs oracle bench accept clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

setup: $(STAMP) ## make .venv with pvh in it
	@# The sources are compiled even where PYTHONDONTWRITEBYTECODE is set: start-up is most of a short run.
	$(BIN)/python -m compileall -q src

$(STAMP): pyproject.toml
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi
	done
	if [ -z "$${found:-}" ]; then
	  echo "make setup: no Python 3.11 or later with venv on PATH (on Debian: apt-get install python3-venv)" >&2; exit 1
	fi
	echo "setting up $(VENV) with $$($$found --version)"
	$$found -m venv --clear $(VENV)
	$(BIN)/python -m pip install -qq --upgrade 'pip>=25.1' # dependency groups
	$(BIN)/python -m pip install -qq --editable . --group dev
	touch $@

boot: setup ## boot Debian's cloud kernel (or KERNEL=path) on the embedded emulator
	@kernel='$(KERNEL)' extra=()
	if [ -z "$$kernel" ]; then
	  if kernel=$$($(BIN)/python tools/obtain.py vmlinuz-cloud-6.1); then
	    $(BIN)/python -m pvh.demo >.cache/hello.cpio # a /init that says hello and powers off
	    extra=(--initrd .cache/hello.cpio)
	  else
	    kernel=$$($(BIN)/python -c 'from pvh.demo import demo_path; print(demo_path())')
	    echo "make boot: Debian's kernel cannot be had here (see above), so this is the bundled demo kernel" >&2
	  fi
	fi
	echo "+ $(BIN)/pvh run $(BOOT) $${extra[*]} $$kernel" >&2
	$(BIN)/pvh run $(BOOT) "$${extra[@]}" "$$kernel"

specimens: setup ## real images and loaders, for the tests
	@$(BIN)/python tools/obtain.py >/dev/null
	$(BIN)/python -m tools.debian >/dev/null
	# Other people's loaders, out of other people's wheels: without them their tests skip, and say so.
	$(BIN)/python -m tools.loaders >/dev/null || true

lint: setup
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)

types: setup
	for version in $(TYPED_FOR); do echo "mypy, Python $$version"; $(BIN)/mypy --python-version $$version; done
	$(BIN)/pyright --pythonpath $(BIN)/python

test: lint types specimens ## linters, type checkers, tests, branch coverage (at most 15 minutes)
	@# gdb reads our cores, iasl our ACPI tables, fish and zsh our completion, gcc and rustc make the kernels of the pages; without
	@# them their tests skip, and say so.
	$(BIN)/python tools/obtain.py --command gdb=gdb iasl=acpica-tools gcc=gcc rustc=rustc fish=fish zsh=zsh || true
	export PVH_SPECIMENS=required
	# The rooms that data flows through before a guest runs are covered by tests of their own.
	own=(tests/abi tests/kernel tests/plan tests/build tests/test_snapshot.py tests/conformance/test_profiles.py)
	$(BIN)/pytest -n $(JOBS) "$${own[@]}" --cov=pvh --cov-branch --cov-report=
	for room in $(COVERED); do $(BIN)/coverage report --include="src/pvh/$$room/*" --fail-under=95; done
	$(BIN)/pytest -n $(JOBS) -m 'not browser and not nested and not slow' "$${own[@]/#/--ignore=}"

test-more: setup specimens docs ## documentation, browser, genuine KVM inside QEMU, mutations, other Pythons (at most 45 minutes)
	@$(BIN)/python tools/obtain.py --command qemu-system-x86_64=qemu-system-x86 chromium=chromium
	PVH_SPECIMENS=required $(BIN)/pytest -m 'browser or nested or slow'
	for room in $(MUTATED); do $(BIN)/python tools/mutate.py $$room; done
	$(BIN)/python -m tools.pythons

test-loaders: setup ## every odd kernel in QEMU, libxenguest, Firecracker, libkrun themselves (3 minutes)
	@$(BIN)/python tools/obtain.py --command qemu-system-x86_64=qemu-system-x86
	$(BIN)/python -m tools.loaders
	$(BIN)/pytest tests/kernel/test_loaders.py

docs: setup ## build the documentation into .cache/site; a warning is an error
	@$(BIN)/python -m pip install -qq --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

oracle: setup ## real Xen inside QEMU: run our guests there, keep its logs, compare (1 minute)
	@$(BIN)/python tools/obtain.py --command qemu-system-x86_64=qemu-system-x86
	$(BIN)/python tools/oracle/run.py
	$(BIN)/pytest tests/oracle

bench: setup ## start-up and a Linux boot against QEMU's, interleaved, into bench/results
	@$(BIN)/python tools/obtain.py --command qemu-system-x86_64=qemu-system-x86
	$(BIN)/python -m bench.startup
	$(BIN)/python -m bench.linux_boot

accept: setup specimens bench ## campaigns by hand: hours of fuzzing, the figures of the README
	@$(BIN)/python tools/obtain.py --command qemu-system-x86_64=qemu-system-x86 gcc=build-essential
	today=$$(date +%F) log=bench/results/accept-$$today.log
	{ date --iso-8601=seconds; $(BIN)/pip freeze; } > "$$log"
	PVH_SPECIMENS=required PVH_FUZZ=100 $(BIN)/pytest -n $(JOBS) -m 'not browser and not nested' 2>&1 | tee -a "$$log"
	$(BIN)/python -m bench.hypercall
	$(BIN)/python -m bench.accept
	$(BIN)/python -m bench.accept --nested
	# A million random vcpu_op calls on each engine that is here (a KVM without hardware below has no paged 32-bit code).
	$(BIN)/python tests/fuzz/run_vcpu_fuzz.py --json bench/results/accept-vcpu-fuzz-emulator-$$today.json
	if [ -w /dev/kvm ]; then
	  $(BIN)/python tests/fuzz/run_vcpu_fuzz.py --engine kvm --each 5000 --words nopaged \
	    --json bench/results/accept-vcpu-fuzz-kvm-$$today.json
	fi
	# A million random calls of every number, and a million events to two vCPUs that mask and unmask.
	$(BIN)/python tests/fuzz/run_any_calls.py --json bench/results/accept-any-calls-emulator-$$today.json
	$(BIN)/python tests/fuzz/run_chanmask.py --json bench/results/accept-chanmask-emulator-$$today.json
	if [ -w /dev/kvm ]; then
	  $(BIN)/python tests/fuzz/run_any_calls.py --engine kvm --each 5000 \
	    --json bench/results/accept-any-calls-kvm-$$today.json
	  $(BIN)/python tests/fuzz/run_chanmask.py --engine kvm --json bench/results/accept-chanmask-kvm-$$today.json
	fi

clean: ## remove what make made
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find src tests tools bench -name __pycache__ -prune -exec rm -rf {} +
