# make up            bring the stack up on this machine; make down takes it away again
# make test          what a change must pass, after all the set-up that it needs
# make nightly       what boots a stack of its own beyond that: images, networks, weights, ends (20 min)
# make drills        kill each part of a running stack in turn, under load (an hour)
# STACK=<name>       another stack (Pulumi.<name>.yaml)        BOOT=no   apply without booting nodes
# BARE=yes          nodes without vLLM, which install it from a package index
# PROVIDER=real      the real Pulumi AWS plugin, where installed
# eval "$(make -s env)"   point pulumi, aws, terraform or boto3 at the rehearsal's account

STACK    ?= rehearsal
BOOT     ?= yes
BARE     ?= no
PROVIDER ?= ours
PYTHON3  ?= python3

PYTHON    := .venv/bin/python
INSTALLED := .venv/.installed
RUN       := $(PYTHON) -m rehearsal

$(if $(filter yes no,$(BOOT)),,$(error BOOT must be yes or no, not '$(BOOT)'))
$(if $(filter ours real,$(PROVIDER)),,$(error PROVIDER must be ours or real, not '$(PROVIDER)'))
boot := $(if $(filter no,$(BOOT)),--no-boot,--boot) $(if $(filter yes,$(BARE)),--bare)

.PHONY: help venv setup up preview down env test unit check nightly drills bench lock runtime-locks
.DEFAULT_GOAL := help

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

venv: $(INSTALLED)

$(INSTALLED): requirements/dev.lock requirements/make_venv.py pyproject.toml
	@$(PYTHON3) requirements/make_venv.py

setup: venv
	@$(RUN) setup --stack '$(STACK)' $(boot)

up: venv
	@$(RUN) up --stack '$(STACK)' $(boot) --provider $(PROVIDER)

preview: venv
	@$(RUN) preview --stack '$(STACK)' --provider $(PROVIDER)

down: venv
	@$(RUN) down --stack '$(STACK)' --provider $(PROVIDER)

env: venv
	@$(RUN) env

unit: venv
	$(PYTHON) -m pytest -n auto --dist loadscope

test: unit
	@$(RUN) setup
	$(PYTHON) -m pytest -m "e2e and not drill and not alone" -n 2 --dist loadscope --maxfail 10
	$(PYTHON) -m pytest -m "alone and not drill"

nightly: venv
	@$(RUN) setup
	$(PYTHON) -m pytest -m "nightly and not drill" -n 2 --dist loadscope

drills: venv
	@$(RUN) setup
	$(PYTHON) -m pytest -m drill

bench: venv
	@$(RUN) setup
	$(PYTHON) -m pytest -m bench -s

check: venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/basedpyright
	.venv/bin/lint-imports

# Lock files hold versions and hashes, no registry's address: whoever installs chooses that.
lock: venv
	PATH="$$PATH:.venv/bin" uv pip compile --quiet --python-version 3.11 --generate-hashes \
	    --no-header --no-emit-index-url --no-emit-find-links \
	    --output-file requirements/dev.lock requirements/dev.in
	PATH="$$PATH:.venv/bin" uv pip compile --quiet --python-version 3.11 --generate-hashes \
	    --no-header --no-emit-index-url --no-emit-find-links --constraint requirements/dev.lock \
	    --output-file requirements/node.lock requirements/node.in

# What vLLM's environment on a node holds, for each release and interpreter: requirements/runtime/.
runtime-locks: venv
	PATH="$$PATH:.venv/bin" $(PYTHON) requirements/make_runtime_locks.py
