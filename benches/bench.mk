# Benchmarks, included by the Makefile. Their programs go to build/bench, raw results as well.

##@ Measure

.PHONY: bench bench-quick bench-instructions bench-programs bench-deps
bench: bench-programs ## measure against the peers: benches/RESULTS.md and plots, in some 15 minutes
	@benches/run.py

bench-quick: bench-programs ## the same at reduced size into build/bench/quick, under two minutes
	@benches/run.py --quick

bench-instructions: stage ## count the instructions of a call, and compare them with the committed table
	@$(PROGRAMS) build/bench/etslock_instructions || true
	@scripts/bench-instructions.sh

bench-programs: stage
	@$(PROGRAMS) $(patsubst benches/%.c,build/bench/%,$(wildcard benches/*.c)) \
	    $(patsubst benches/%.cpp,build/bench/%,$(wildcard benches/*.cpp))
	@cargo build --quiet --release --locked --manifest-path benches/peers-rust/Cargo.toml \
	    --target-dir target/bench-peers --bins --features same-call
	@cp target/bench-peers/release/peers build/bench/peers
	@cp target/bench-peers/release/same-call build/bench/same-call

bench-deps: ## install the Debian packages of the peers (root)
	@scripts/bench-deps.sh

BENCH_COMPILE = -O2 -g -Wall -Wextra -Wpedantic -Werror -pthread -MMD -MP
build/bench/%: benches/%.c build/lib/libetslock.so
	@mkdir -p $(@D); rm -f $@
	@$(CC) -std=c11 $(BENCH_COMPILE) -Ibuild/include -MT $@ -MF $@.d $< -o $@ \
	    -Lbuild/lib -letslock -ldl -lm -Wl,-rpath,'$$ORIGIN/../lib'

build/bench/%: benches/%.cpp
	@mkdir -p $(@D); rm -f $@
	@$(CXX) -std=c++17 $(BENCH_COMPILE) -MT $@ -MF $@.d $< -o $@ -ltbb -lm

-include $(wildcard build/bench/*.d)
