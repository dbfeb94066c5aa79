# The model of the lock protocol, included by the Makefile.

##@ Model

.PHONY: test-protocol
test-protocol: ## search every state of the lock protocol with spin, and find the mistakes planted in it
	@scripts/test-protocol.sh
