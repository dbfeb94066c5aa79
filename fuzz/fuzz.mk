# Fuzzing, included by the Makefile. See fuzz/README.md.

##@ Fuzz

MINUTES ?= 30

.PHONY: fuzz fuzz-long fuzz-corpus
fuzz: ## random programs against a model for a minute; needs Rust nightly
	@scripts/fuzz.sh 60

fuzz-long: ## the same for MINUTES=30
	@scripts/fuzz.sh $$(($(MINUTES) * 60))

fuzz-corpus: ## make fuzz/corpus anew, small, from it and from what the fuzzer learned
	@scripts/fuzz-corpus.sh
