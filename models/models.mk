# The model of the lock protocol, included by the Makefile. See models/README.md.

##@ Model

.PHONY: test-protocol
test-protocol: ## search the states of the lock protocol with spin, and find the mistakes planted in it
	@scripts/test-protocol.sh
