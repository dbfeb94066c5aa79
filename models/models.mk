# The model of the lock protocol, included by the Makefile.

##@ Model

.PHONY: test-protocol test-protocol-full
test-protocol: ## search the states of the lock protocol with spin, and find the mistakes planted in it
	@scripts/test-protocol.sh

test-protocol-full: ## as test-protocol, and the variants that take minutes each
	@scripts/test-protocol.sh full
