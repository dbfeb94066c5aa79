# The chaos soak, included by the Makefile. Its program goes to build/tests/soak.

.PHONY: soak soak-long soak-program

soak: soak-program ## everything at once for a minute, with books that must balance; SEED=...
	@scripts/soak.sh 60 $(SEED)

soak-long: soak-program ## the same for ten minutes, or MINUTES=...
	@scripts/soak.sh $$(($(or $(MINUTES),10) * 60)) $(SEED)

soak-program: stage
	@$(PROGRAMS) build/tests/soak/soak || true

build/tests/soak/%: tests/soak/%.c
	@mkdir -p $(@D); rm -f $@
	@$(CC) -std=c99 $(POSIX) $(COMPILE) -MT $@ -MF $@.d $< -o $@ $(SHARED)
