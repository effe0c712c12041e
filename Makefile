# The front door. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.ONESHELL:
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
READY := $(VENV)/.ready
PY := $(VENV)/bin/python
HUB ?=
HUB_USER ?=
ARGS ?=
DRY_RUN ?=
SIGN ?=
PUBLISH_AS = $(if $(ORG),--org $(ORG),$(if $(HUB_USER),--user $(HUB_USER))) $(if $(REVISION),--revision $(REVISION)) \
	$(if $(PR),--pr) $(if $(PRIVATE),--private) $(if $(COLLECTION),--collection "$(COLLECTION)") \
	$(if $(OVERWRITE),--overwrite $(OVERWRITE)) $(if $(SIGN),--sign $(SIGN)) \
	$(if $(VERDICT),--verdict $(VERDICT)) $(if $(TIME_LIMIT),--time-limit $(TIME_LIMIT)) $(if $(DRY_RUN),--dry-run)
EXPORT_AS = --format $(or $(FORMAT),merged) --into $(RUNS)/exports $(if $(HUB_USER),--user $(HUB_USER)) \
	$(if $(SAMPLE),--sample $(SAMPLE)) $(if $(FORCE),--force) $(if $(PUBLISH),--publish) $(if $(PRIVATE),--private) \
	$(if $(OVERWRITE),--overwrite $(OVERWRITE))
ACCELERATE ?= recipes/accelerate/$(if $(shell command -v nvidia-smi),gpu,cpu).yaml
LOCAL_HUB_ROOT ?= .local_hub
export LOCAL_HUB_ROOT
# Given to make alone: some shells export the machine's name as HOST, and the service would leave 127.0.0.1.
SERVE_AT = $(foreach key,HOST PORT,$(if $(filter command,$(origin $(key))),--$(if $(filter HOST,$(key)),host,port) $($(key))))
LOCAL_HUB := $(PY) -m local_hub run $(if $(ORG),--org $(ORG)) --

ifeq ($(HUB),local)
ON_HUB := HUB_USER=$(or $(HUB_USER),local-user) $(LOCAL_HUB)
RUNS ?= $(LOCAL_HUB_ROOT)/runs
# A miniature gains nothing from a second thread, and loses much where threads have to wait for a core.
export OMP_NUM_THREADS ?= 1
else
ON_HUB :=
RUNS ?= runs
# One number for training, scoring and reproducing: on a CPU the last bits depend on it.
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
endif

.PHONY: help install demo test lint hub publish reproduce retrain claims compare report readme bench serve space publish-space export _demo _clean-demo
help: ## print this list
	@sed -nE 's/^([a-zA-Z][a-zA-Z0-9_%-]*):.*## (.*)/\1\t\2/p' Makefile | sed 's/%/R/' | expand -t 14
	echo
	echo 'R is a recipe: $(patsubst recipes/%.yaml,%,$(wildcard recipes/*.yaml)).'
	echo 'Every target takes HUB=local (the local Hub), HUB_USER=name and ARGS="--key value" (overrides of the recipe that is'
	echo 'trained). Publishing takes DRY_RUN=1, PR=1, PRIVATE=1, ORG=name, COLLECTION="title", REVISION=branch, OVERWRITE=commit,'
	echo 'SIGN=key.pem, VERDICT=verdict.json and TIME_LIMIT=minutes; reproducing takes VERIFY_KEY=public.pem and OFFLINE=1.'

install: $(READY) ## make the environment (every other target does it by itself)

$(READY): requirements.txt
	@[ -n "$(PYTHON)" ] || { echo 'error: no Python 3.11 or newer was found: install one, or name it with PYTHON=path' >&2; exit 1; }
	echo 'Installing the requirements into $(VENV) (once, some minutes)'
	"$(PYTHON)" -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: $(READY) _clean-demo ## the whole loop on the local Hub: train, score, card, publish, pull back, score again
	@OMP_NUM_THREADS=1 HUB_USER=local-user $(LOCAL_HUB) $(MAKE) _demo HUB= HUB_USER= ARGS= RUNS=$(LOCAL_HUB_ROOT)/demo

_clean-demo:
	@rm -rf $(LOCAL_HUB_ROOT)/demo

# Runs inside the local Hub's environment. The last command is a stranger: an empty folder, an empty cache, no token.
_demo:
	@step() { printf '\n\033[1m%s\033[0m\n' "$$*"; }
	step '1/4  Train: FLAN-T5 (a miniature) with LoRA on financial questions'
	$(MAKE) train-finance
	step '2/4  Score: base model and adapter on the test rows'
	$(MAKE) evaluate-finance
	step '3/4  Publish: adapter, card, plots, record and predictions in one commit'
	$(MAKE) publish-finance
	step '4/4  Reproduce: a stranger with nothing but the id'
	stranger=$$(mktemp -d)
	trap 'rm -rf "$$stranger"' EXIT
	cd "$$stranger"
	env -u HF_TOKEN HF_HOME="$$stranger/cache" PYTHONPATH="$(CURDIR)" \
		"$(abspath $(PY))" -m evaluation.reproduce local-user/flan-t5-large-finance

train-%: recipes/%.yaml $(READY) ## train recipe R; continues an interrupted run
	@$(ON_HUB) $(VENV)/bin/accelerate launch --quiet --config_file $(ACCELERATE) \
		-m recipes.train --config $< --output_dir $(RUNS)/$* $(ARGS)

evaluate-%: $(READY) ## score base model and adapter on R's test rows
	@$(ON_HUB) $(PY) -m evaluation.evaluate $(RUNS)/$*

publish-%: $(READY) ## publish R's adapter in one commit and check it by pulling it back
	@$(ON_HUB) $(PY) -m push.publish $(RUNS)/$* $(PUBLISH_AS)

publish: $(READY) ## publish every scored recipe in the order of their chain; what fails stops no other
	@$(ON_HUB) $(PY) -m push.publish $(or $(patsubst %/record.json,%,$(wildcard $(RUNS)/*/record.json)),$(RUNS)/finance) \
		$(PUBLISH_AS)

export-%: $(READY) ## R's adapter for CPU hosts: FORMAT="merged int8 ct2 ct2-int8" [SAMPLE= PUBLISH=1 FORCE=1]
	@$(ON_HUB) $(PY) -m serving.export.make $(RUNS)/$* $(EXPORT_AS)

export: $(READY) ## the same of a published adapter: ADAPTER=owner/name FORMAT=int8 [REVISION=]
	@[ -n "$(ADAPTER)" ] || { echo 'error: no adapter was named: make export ADAPTER=owner/name FORMAT=int8' >&2; exit 1; }
	$(ON_HUB) $(PY) -m serving.export.make --adapter $(ADAPTER) $(if $(REVISION),--revision $(REVISION)) $(EXPORT_AS)

reproduce: $(READY) ## check a published adapter's numbers: ADAPTER=owner/name [REVISION= LEVEL= SAMPLE= REPORT= JSON=1]
	@[ -n "$(ADAPTER)" ] || { echo 'UNCHECKED no adapter was named: make reproduce ADAPTER=owner/name'; exit 2; }
	$(if $(OFFLINE),HF_HUB_OFFLINE=1) $(ON_HUB) $(PY) -m evaluation.reproduce $(ADAPTER) \
		$(if $(REVISION),--revision $(REVISION)) $(if $(LEVEL),--level $(LEVEL)) $(if $(SAMPLE),--sample $(SAMPLE)) \
		$(if $(VERIFY_KEY),--verify-key $(VERIFY_KEY)) $(if $(REPORT),--report $(REPORT)) $(if $(JSON),--json)

retrain: $(READY) ## train a published adapter again from its record alone, and compare: ADAPTER=owner/name
	@$(MAKE) reproduce LEVEL=train

serve: $(READY) ## answer over HTTP as OpenAI does: ADAPTER="owner/name runs/finance" [HOST= PORT=] [ARGS="--timeout 60"]
	@[ -n "$(ADAPTER)" ] || { echo 'error: no adapter was named: make serve ADAPTER=owner/name' >&2; exit 1; }
	exec env $(ON_HUB) $(PY) -m serving.server $(ADAPTER) $(SERVE_AT) $(ARGS)

compare: $(READY) ## base models side by side: RECIPES="finance-base finance finance-xl", scored runs
	@$(PY) -m model_cards.compare $(addprefix $(RUNS)/,$(or $(RECIPES),finance-base finance finance-xl)) --into $(RUNS)/compare

report: $(READY) ## one page over all scored runs, row by row: [RECIPES= | ADAPTERS="owner/a owner/b"] [INTO=page.html]
	@$(if $(OFFLINE),HF_HUB_OFFLINE=1) $(if $(ADAPTERS),$(ON_HUB)) $(PY) -m model_cards.overview --into $(or $(INTO),$(RUNS)/report.html) \
		$(or $(ADAPTERS),$(if $(RECIPES),$(addprefix $(RUNS)/,$(RECIPES)),$(patsubst %/record.json,%,$(wildcard $(RUNS)/*/record.json))))

# The page is an extra.
$(READY)-space: requirements-space.txt $(READY)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-space.txt
	touch $@

space: $(READY)-space ## try an adapter in a browser, on this machine: ADAPTER=owner/name or a run's folder [REVISION= PORT=]
	@[ -n "$(ADAPTER)" ] || { echo 'error: no adapter was named: make space ADAPTER=owner/name' >&2; exit 1; }
	$(ON_HUB) $(PY) -m serving.space.publish $(ADAPTER) --here $(if $(REVISION),--revision $(REVISION)) $(if $(PORT),--port $(PORT))

publish-space: $(READY) ## publish that page as a Space: ADAPTER=owner/name [REVISION= SPACE=owner/name PRIVATE=1]
	@[ -n "$(ADAPTER)" ] || { echo 'error: no adapter was named: make publish-space ADAPTER=owner/name' >&2; exit 1; }
	$(ON_HUB) $(PY) -m serving.space.publish $(ADAPTER) $(if $(HUB_USER),--user $(HUB_USER)) \
		$(if $(REVISION),--revision $(REVISION)) $(if $(SPACE),--space $(SPACE)) $(if $(PRIVATE),--private)

hub: $(READY) ## the local Hub in the foreground
	@$(PY) -m local_hub serve $(ARGS)

claims: $(READY) ## README's results from the Hub: claims.yaml's adapters, their records and verdicts [CHECK=1] [LEVEL=score]
	@$(ON_HUB) $(PY) -m readme.claims $(if $(CHECK),--check) $(if $(LEVEL),--level $(LEVEL))

readme: $(READY) ## render README's tables from docs/claims and the recipes, without any Hub
	@$(PY) -m readme.render

# Signatures, the measuring of energy, CTranslate2, the Space and the browser are extras: what they need is installed where they are tested.
EXTRAS := requirements-signing.txt requirements-energy.txt requirements-ctranslate2.txt \
	requirements-space.txt requirements-browser.txt
$(READY)-extras: $(EXTRAS) $(READY)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check $(addprefix -r ,$(EXTRAS))
	touch $@

bench: $(READY) ## measure this project beside its peers, and render README's figures (it takes long on a CPU): [DEVICE=cuda] [ARGS="--only training"]
	@$(PY) -m benchmarks --device $(or $(DEVICE),cpu) $(ARGS)
	$(PY) -m readme.render

test: $(READY)-extras ## run the tests
	@$(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations 15 $(ARGS)

lint: $(READY) ## check style with ruff
	@$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
