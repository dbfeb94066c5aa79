# Builds, tests and installs etslock. `make help` lists what it can do.
#
# build/ is laid out like an installed prefix: build/lib, build/include. Nothing outside of build/
# and cargo's target/ is written, save by `header`, `fmt` and `install`.

CLANG   ?= clang
CFLAGS  ?= -O1 -g
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
export CC CXX PREFIX LIBDIR INCLUDEDIR DESTDIR STRICT

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:

##@ Build

.PHONY: all stage header clean
all: stage ## build the libraries, headers, pkg-config and CMake files into build/

stage:
	@scripts/stage.sh

header: stage ## copy the generated header to include/etslock.h
	cp build/include/etslock.h include/etslock.h

clean: ## remove everything that was built
	rm -rf build
	cargo clean

##@ Look around

EXAMPLES := $(patsubst examples-c/%.c,%,$(wildcard examples-c/*.c))

.PHONY: help demo examples
help: ## list the targets
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z%-]+:.*## / { sub("%", "NN", $$1); printf "  %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: stage ## build everything and run the example of the README
	@$(PROGRAMS) build/examples/c/01_readme
	@echo
	@echo "Two threads write one key. The first holds its lock for 100 ms and writes \"nope\";"
	@echo "the second comes at 50 ms, has to wait, and writes last. The key now holds:"
	@echo
	@build/examples/c/01_readme

example-%: stage ## build and run one example of examples-c/, as in `make example-03`
	@$(PROGRAMS) $(patsubst %,build/examples/c/%,$(filter $*_%,$(EXAMPLES)))
	@build/examples/c/$(or $(filter $*_%,$(EXAMPLES)),no-such-example)

examples: stage ## run every example and compare what it prints
	@$(PROGRAMS) $(EXAMPLES:%=build/examples/c/%) || true
	@scripts/test-examples.sh build/examples/c $(EXAMPLES:%=examples-c/%.c)

##@ Test

# The C tests use POSIX; the headers and examples compile without being told so.
POSIX := -D_POSIX_C_SOURCE=200809L

C_SOURCES   := $(wildcard tests/c/*.c)
CXX_SOURCES := $(wildcard tests/c/*.cpp)
# The rest is the same code: these show that the static library links and works.
STATIC_SOURCES := $(filter %/original.c %/kill.c,$(C_SOURCES))
C_PROGRAMS      := $(C_SOURCES:tests/c/%.c=build/tests/c99/%)
CXX_PROGRAMS    := $(CXX_SOURCES:tests/c/%.cpp=build/tests/cpp/%)
# Again in a later dialect, where the header offers more: those that test the header.
CXX20_SOURCES   := $(wildcard tests/c/hpp*.cpp)
CXX20_PROGRAMS  := $(CXX20_SOURCES:tests/c/%.cpp=build/tests/cpp20/%)
HAS_CXX20 = echo 'int main() {}' | $(CXX) -std=c++20 -fsyntax-only -x c++ - 2>/dev/null
STATIC_PROGRAMS := $(STATIC_SOURCES:tests/c/%.c=build/tests/static/%)

KINDS := check-header check-symbols check-abi test-rust test-model test-mutants-few test-protocol \
         test-dialects test-c test-cpp test-static examples test-ffi check-install test-memory

.PHONY: test $(KINDS)
test: all ## run everything below; STRICT=1 makes a missing tool a failure
	@rm -rf build/results
	@for kind in $(KINDS); do $(SUBMAKE) $$kind || true; done
	@scripts/summary.sh

test-rust: ## the Rust tests
	@scripts/test-rust.sh

test-model: ## the models of the state machines: every interleaving under loom, schedules under shuttle
	@scripts/test-model.sh

test-mutants-few: stage ## plant a few of the bugs of tests/mutants/: the tests must see each
	@scripts/test-mutants.sh few

test-c: stage ## the C tests: C99, with the shared and the static library
	@$(PROGRAMS) $(C_PROGRAMS) $(STATIC_PROGRAMS) || true
	@status=0; \
	scripts/test-programs.sh c99 build/tests/c99 $(C_SOURCES) || status=1; \
	scripts/test-programs.sh static build/tests/static $(STATIC_SOURCES) || status=1; \
	exit $$status

test-cpp: stage ## the C++ tests: C++17, and what tests the header in C++20 too
	@! command -v $(CXX) >/dev/null || $(PROGRAMS) $(CXX_PROGRAMS) || true
	@! $(HAS_CXX20) || $(PROGRAMS) $(CXX20_PROGRAMS) || true
	@status=0; \
	NEEDS=$(CXX) scripts/test-programs.sh cpp build/tests/cpp $(CXX_SOURCES) || status=1; \
	! $(HAS_CXX20) || scripts/test-programs.sh cpp20 build/tests/cpp20 $(CXX20_SOURCES) || status=1; \
	exit $$status

test-static: stage ## link the static library beside another Rust archive, and into plug-ins
	@scripts/test-static.sh

test-dialects: stage ## compile headers and programs as C99, C11 and C++17, with gcc and clang
	@scripts/test-dialects.sh

test-ffi: stage ## the tests of other languages
	@scripts/test-ffi.sh

test-memory: stage ## the C and C++ tests under valgrind
	@$(PROGRAMS) $(C_PROGRAMS) || true
	@! command -v $(CXX) >/dev/null || $(PROGRAMS) $(CXX_PROGRAMS) || true
	@status=0; \
	scripts/test-memory.sh memory build/tests/c99 $(C_SOURCES) || status=1; \
	NEEDS=$(CXX) scripts/test-memory.sh memory-cpp build/tests/cpp $(CXX_SOURCES) || status=1; \
	exit $$status

check-header: stage ## is include/etslock.h what the sources give?
	@scripts/check-header.sh

check-symbols: stage ## do library, header and exports/etslock.symbols agree?
	@scripts/check-symbols.sh

check-abi: stage ## does a client of 0.1 run, and what does abidiff find beside additions?
	@scripts/check-abi.sh

check-install: stage ## install, build a program as a user would, uninstall
	@scripts/check-install.sh

##@ Deep checks, not part of `test`

.PHONY: test-mutants test-cycles test-asan test-tsan
test-mutants: ## plant every bug of tests/mutants/, one at a time; MUTANTS="hold_*" selects
	@scripts/test-mutants.sh all

test-cycles: stage ## ten million locks of fresh keys: does memory stay where it was?
	@$(PROGRAMS) build/tests/c99/memory_cycles
	@build/tests/c99/memory_cycles 10000000

test-asan: ## the Rust and C tests under AddressSanitizer; needs Rust nightly
	@scripts/test-sanitizers.sh asan $(C_SOURCES)

test-tsan: ## the Rust and C tests under ThreadSanitizer; needs Rust nightly
	@scripts/test-sanitizers.sh tsan $(C_SOURCES)

##@ Style

.PHONY: fmt lint
fmt: ## format the Rust sources
	cargo fmt

lint: ## check format and lints
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

##@ Install

.PHONY: install uninstall deps
# Builds only when there is nothing to install, so that `make && sudo make install` needs no cargo.
install: $(if $(wildcard build/lib/libetslock.so),,stage) ## install build/ to PREFIX, DESTDIR
	@scripts/install.sh install

uninstall: ## remove what install put there
	@scripts/install.sh uninstall

deps: ## install the Debian packages that the tests want (root)
	@scripts/deps.sh

# How programs are built. These rules expect a fresh build/, so only sub-makes use them.

SUBMAKE = $(MAKE) --no-print-directory
PROGRAMS = $(SUBMAKE) --silent --keep-going -j$(JOBS)
COMPILE = $(CFLAGS) -Wall -Wextra -Wpedantic -Werror -pthread -MMD -MP -Ibuild/include
SHARED  = -Lbuild/lib -letslock -ldl -lm -Wl,-rpath,'$$ORIGIN/../../lib'
STATIC  = build/lib/libetslock.a $$(sed -n 's/^Libs.private: //p' build/lib/pkgconfig/etslock.pc)

# A program that no longer compiles must not be run in its old form: hence `rm`.
build/tests/c99/%: tests/c/%.c
	@mkdir -p $(@D); rm -f $@
	@$(CC) -std=c99 $(POSIX) $(COMPILE) -MT $@ -MF $@.d $< -o $@ $(SHARED)

build/tests/static/%: tests/c/%.c build/lib/libetslock.a
	@mkdir -p $(@D); rm -f $@
	@$(CC) -std=c99 $(POSIX) $(COMPILE) -MT $@ -MF $@.d $< -o $@ $(STATIC)

build/tests/cpp/%: tests/c/%.cpp
	@mkdir -p $(@D); rm -f $@
	@$(CXX) -std=c++17 $(COMPILE) -MT $@ -MF $@.d $< -o $@ $(SHARED)

build/tests/cpp20/%: tests/c/%.cpp
	@mkdir -p $(@D); rm -f $@
	@$(CXX) -std=c++20 $(COMPILE) -MT $@ -MF $@.d $< -o $@ $(SHARED)

build/examples/c/%: examples-c/%.c
	@mkdir -p $(@D); rm -f $@
	@$(CC) -std=c99 $(COMPILE) -MT $@ -MF $@.d $< -o $@ $(SHARED)

-include $(wildcard build/tests/*/*.d build/examples/c/*.d)

include benches/bench.mk
include models/models.mk
include tests/soak/soak.mk
include fuzz/fuzz.mk
include scripts/supply-chain.mk
