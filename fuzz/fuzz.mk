# Fuzzing, included by the Makefile. See fuzz/README.md.

##@ Fuzz

.PHONY: fuzz fuzz-long fuzz-corpus
fuzz: ## random programs against a model for a minute; needs Rust nightly
	@scripts/fuzz.sh 60

fuzz-long: ## the same for half an hour, or MINUTES=...
	@scripts/fuzz.sh $$(($(or $(MINUTES),30) * 60))

fuzz-corpus: ## make fuzz/corpus anew, small, from it and from what the fuzzer learned
	@scripts/fuzz-corpus.sh
