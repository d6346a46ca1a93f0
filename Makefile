# A small front door; CMake does the work. `make` alone says what there is.
#
# `make test` and `make demo` each work on a Debian 12 machine where nothing was done before.

PRESET ?= release
BUILD  ?= build
JOBS   ?= $(shell nproc)
PREFIX ?= /usr/local

help: ## show this list
	@echo 'favor: Transformers on long sequences in C'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  JOBS=N limits parallel jobs, PREFIX=DIR is where `make install` puts things.'

deps: ## install what building and testing need (Debian packages)
	@tools/install-deps

build: deps ## the program, left at build/favor, and the libraries
	@cmake --preset $(PRESET) -DCMAKE_INSTALL_PREFIX=$(PREFIX) >$(BUILD)-configure.log 2>&1 || \
	    { cat $(BUILD)-configure.log; exit 1; }
	@cmake --build $(BUILD) --parallel $(JOBS)

test: build ## build, then run every test
	@tools/run-tests $(BUILD)

demo: build ## train on real proteins, evaluate, generate, measure: runs/demo/
	@tools/demo

bench: build ## speed of attention, of a training step and of a token on this machine
	@$(BUILD)/favor bench attention
	@$(BUILD)/favor bench train
	@$(BUILD)/favor bench decode

bench-docs: build ## measure at length, write docs/RESULTS.md (on an idle machine)
	@FAVOR=$(BUILD)/favor tools/bench-docs

install: build ## install under PREFIX (/usr/local); DESTDIR works
	@cmake --install $(BUILD) --prefix $(PREFIX)

fmt: ## format every C file
	@tools/install-deps --lint
	@tools/format

lint: build ## format, include rule, symbols, forbidden calls, static analysis
	@tools/install-deps --lint
	@tools/lint $(BUILD)

fuzz: ## fuzz the readers for a minute (Clang)
	@tools/install-deps --lint
	@tools/fuzz 60

clean: ## remove build trees; data/ and runs/ stay
	@rm -rf $(BUILD) build-* $(BUILD)-configure.log

.PHONY: help deps build test demo bench bench-docs install fmt lint fuzz clean
