# The supply chain, included by the Makefile: what the library is made of, and whether that is fit.
# STRICT=1 installs the tools of Rust that are missing, at the versions of scripts/rust-tools.sh.

##@ Supply chain

.PHONY: check-deny check-advisories check-msrv check-minimal-versions check-reproducible \
        sbom third-party
check-deny: ## are licences, versions and sources of the dependencies as deny.toml says?
	@scripts/check-deny.sh

check-advisories: ## has a dependency a known weakness, or no maintainer? Needs the internet
	@scripts/check-advisories.sh

check-msrv: ## does the library build with the oldest Rust that Cargo.toml promises?
	@scripts/check-msrv.sh

check-minimal-versions: ## the Rust tests with the oldest dependencies that Cargo.toml allows
	@scripts/check-minimal-versions.sh

check-reproducible: stage ## does a second build give the same bytes?
	@scripts/check-reproducible.sh

sbom: ## list what is linked into the library, as CycloneDX, in build/share/doc/etslock
	@scripts/sbom.sh

third-party: ## collect the licences of what is linked, for those who pass the library on
	@scripts/third-party.sh
