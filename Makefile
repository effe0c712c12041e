# The front door: every target is a line of `pubrep`. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.ONESHELL:
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

# What may be set, and by which target; VENV, PYTHON and LOCAL_HUB_ROOT by every one.
HUBS := HUB HUB_USER RUNS ARGS
PUBLISHING := $(HUBS) ORG REVISION PR PRIVATE COLLECTION OVERWRITE SIGN SIGN_IDENTITY IDENTITY_TOKEN TRUST_CONFIG \
	VERDICT KEEP_ROWS TIME_LIMIT DRY_RUN
CHECKING := $(HUBS) ADAPTER REVISION SAMPLE VERIFY_KEY VERIFY_IDENTITY VERIFY_ISSUER TRUST_CONFIG REPORT DATA STRICT JSON OFFLINE ACCELERATE
EXPORTING := $(HUBS) FORMAT SAMPLE FORCE PUBLISH PRIVATE OVERWRITE
TAKES_demo :=
TAKES_plan := $(HUBS)
TAKES_train := $(HUBS) ACCELERATE
TAKES_sweep := $(HUBS) SET ACCELERATE
TAKES_evaluate := $(HUBS) ACCELERATE
TAKES_publish := $(PUBLISHING)
TAKES_reproduce := $(CHECKING) LEVEL
TAKES_vouch := $(HUBS) ADAPTER REVISION LEVEL SAMPLE KEY IDENTITY IDENTITY_TOKEN TRUST_CONFIG DATASET
TAKES_retrain := $(CHECKING)
TAKES_check := $(HUBS) ACCELERATE ADAPTER REVISION RECIPE CLAIM TOLERANCE MODEL BASE CARD RECORD
TAKES_export-results := $(HUBS) ADAPTER REVISION FORMAT INTO
TAKES_withdraw := $(HUBS) ADAPTER REVISION WHY
TAKES_export := $(EXPORTING) ADAPTER REVISION
TAKES_serve := $(HUBS) ADAPTER HOST PORT
TAKES_space := $(HUBS) ADAPTER REVISION PORT
TAKES_publish-data := $(HUBS) ROWS DATASET PUBLIC
TAKES_publish-space := $(HUBS) ADAPTER REVISION SPACE PRIVATE
TAKES_report := $(HUBS) RECIPES ADAPTERS INTO OFFLINE
TAKES_compare := RUNS RECIPES INTO HUB ARGS
TAKES_claims := HUB CHECK LEVEL ARGS
TAKES_readme := ARGS
TAKES_hub := PORT ARGS
TAKES_bench := DEVICE ARGS
TAKES_test := ARGS
TAKES_conformance := ARGS
OWN := $(sort PYTHON VENV LOCAL_HUB_ROOT $(foreach list,$(filter TAKES_%,$(.VARIABLES)),$($(list))))
SWITCHES := SIGN_IDENTITY IDENTITY PR PRIVATE PUBLIC KEEP_ROWS DRY_RUN FORCE PUBLISH STRICT JSON OFFLINE CHECK MODEL

# Taken from make's own command line and from nowhere else: a variable of the environment changes nothing.
given = $(filter command,$(origin $1))
$(foreach name,$(OWN),$(if $(call given,$(name)),,$(eval override $(name) :=)))
GIVEN := $(sort $(foreach name,$(.VARIABLES),$(if $(call given,$(name)),$(name))))
# The verb of a goal: `train` of `train-finance`.
verb = $(or $(filter publish-space publish-data export-results,$1),$(firstword $(subst -, ,$1)))
takes = PYTHON VENV LOCAL_HUB_ROOT $(foreach goal,$(MAKECMDGOALS),$(TAKES_$(call verb,$(goal))))

override PYTHON := $(or $(PYTHON),$(shell for p in python3.12 python3.11 python3.13 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done))
near = $(shell $(or $(PYTHON),python3) -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1))' '$1' $(OWN))
$(foreach name,$(filter-out $(OWN),$(GIVEN)),$(error make knows no variable $(name)$(if $(call near,$(name)),: did you mean $(call near,$(name))?,: see `make help`) Nothing was done))
$(foreach name,$(filter-out $(takes),$(GIVEN)),$(error make $(firstword $(MAKECMDGOALS) help) does not take $(name): see `make help`. Nothing was done))
$(foreach name,$(filter $(SWITCHES),$(GIVEN)),$(if $(filter-out 0 1,$(value $(name))),$(error $(name) is 1 or 0, not $(value $(name)). Nothing was done)))
$(if $(filter-out local real,$(value HUB)),$(error HUB is local or real, not $(value HUB). Nothing was done))

override VENV := $(or $(VENV),.venv)
READY := $(VENV)/.ready
PY := $(VENV)/bin/python
override LOCAL_HUB_ROOT := $(or $(LOCAL_HUB_ROOT),.local_hub)
export LOCAL_HUB_ROOT
export HUB_USER
export PUBREP_RUNS := $(or $(RUNS),$(if $(filter local,$(HUB)),$(LOCAL_HUB_ROOT)/)runs)
ifneq ($(HUB),local)
# One number for training, scoring and reproducing: on a CPU the last bits depend on it.
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
endif

# A value as one word of the shell, as it was typed: neither make nor the shell reads it again.
quoted = '$(subst ','\'',$(value $1))'
option = $(if $(value $1),--$2 $(call quoted,$1))
switch = $(if $(filter 1,$(value $1)),--$2)
each = $(foreach word,$(subst ','\'',$(value $1)),'$(word)')
HUB_OPTION = $(call option,HUB,hub)
OFFLINE_IF_ASKED = $(if $(filter 1,$(OFFLINE)),HF_HUB_OFFLINE=1)
PUBREP = $(OFFLINE_IF_ASKED) $(PY) -m pubrep
ARGUMENTS = $(value ARGS)
PUBLISH_AS = $(if $(value ORG),$(call option,ORG,org),$(call option,HUB_USER,user)) $(call option,REVISION,revision) \
	$(call switch,PR,pr) $(call switch,PRIVATE,private) $(call option,COLLECTION,collection) \
	$(call option,OVERWRITE,overwrite) $(call option,SIGN,sign) $(call switch,SIGN_IDENTITY,sign-identity) \
	$(call option,IDENTITY_TOKEN,identity-token) $(call option,TRUST_CONFIG,trust-config) $(call option,VERDICT,verdict) \
	$(call switch,KEEP_ROWS,keep-rows) $(call option,TIME_LIMIT,time-limit) $(call switch,DRY_RUN,dry-run) $(HUB_OPTION) $(ARGUMENTS)
CHECK_AS = $(call option,REVISION,revision) $(call option,SAMPLE,sample) $(call option,VERIFY_KEY,verify-key) \
	$(call option,VERIFY_IDENTITY,verify-identity) $(call option,VERIFY_ISSUER,verify-issuer) $(call option,TRUST_CONFIG,trust-config) \
	$(call option,REPORT,report) $(call option,DATA,data) $(call switch,STRICT,strict) $(call switch,JSON,json) \
	$(call option,ACCELERATE,accelerate) $(HUB_OPTION) $(ARGUMENTS)
EXPORT_AS = $(foreach form,$(or $(value FORMAT),merged),--format '$(form)') $(call option,HUB_USER,user) \
	$(call option,SAMPLE,sample) $(call switch,FORCE,force) $(call switch,PUBLISH,publish) \
	$(call switch,PRIVATE,private) $(call option,OVERWRITE,overwrite) $(HUB_OPTION) $(ARGUMENTS)

.PHONY: help install demo test lint hub publish publish-data withdraw reproduce vouch retrain check claims compare report readme bench serve space publish-space export export-results conformance
help: ## print this list
	@sed -nE 's/^([a-zA-Z][a-zA-Z0-9_%-]*):.*## (.*)/\1\t\2/p' Makefile | sed 's/%/R/' | expand -t 15
	echo
	echo 'R is a recipe: $(patsubst recipes/%.yaml,%,$(wildcard recipes/*.yaml)).' | fold -s -w 79 | sed 's/ *$$//'
	echo
	echo 'Targets that speak with a Hub take HUB=local (the local Hub) and HUB_USER=name;'
	echo 'ARGS="--option value" is added to what the target calls (`pubrep VERB --help`).'
	echo 'Publishing takes DRY_RUN=1 PR=1 PRIVATE=1 ORG=name COLLECTION="title"'
	echo 'REVISION=branch OVERWRITE=commit SIGN=key.pem SIGN_IDENTITY=1'
	echo 'VERDICT=verdict.json TIME_LIMIT=minutes; checking takes REVISION= SAMPLE='
	echo 'VERIFY_KEY=public.pem VERIFY_IDENTITY=you@example.com VERIFY_ISSUER=address'
	echo 'REPORT=page.html STRICT=1 JSON=1 OFFLINE=1; a run takes RUNS=folder. Another'
	echo 'variable is refused; one of the environment is not read.'

install: $(READY) ## make the environment (the other targets do it themselves)

$(READY): requirements.txt
	@[ -n "$(PYTHON)" ] || { echo 'error: no Python 3.11 or newer was found: install one, or name it with PYTHON=path' >&2; exit 1; }
	echo 'Installing the requirements into $(VENV) (once, some minutes)'
	"$(PYTHON)" -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: $(READY) ## the whole loop on the local Hub, no account needed
	@$(PUBREP) demo

plan-%: $(READY) ## what R needs and how long it takes, before hours are spent
	@$(PUBREP) plan '$*' $(HUB_OPTION) $(ARGUMENTS)

train-%: $(READY) ## train recipe R; continue an interrupted run: [ACCELERATE=]
	@$(PUBREP) train '$*' $(call option,ACCELERATE,accelerate) $(HUB_OPTION) $(ARGUMENTS)

sweep-%: $(READY) ## train and score R several times: SET="seed=1,2 lora_r=8,32"
	@[ -n $(call quoted,SET) ] || { echo 'error: no settings were named: make sweep-$* SET="seed=1,2,3 lora_r=8,32"' >&2; exit 1; }
	$(PUBREP) sweep '$*' $(foreach word,$(subst ','\'',$(value SET)),--set '$(word)') $(call option,ACCELERATE,accelerate) $(HUB_OPTION) $(ARGUMENTS)

evaluate-%: $(READY) ## score base model and adapter on R's test rows
	@$(PUBREP) evaluate "$$PUBREP_RUNS"/'$*' $(call option,ACCELERATE,accelerate) $(HUB_OPTION) $(ARGUMENTS)

publish-%: $(READY) ## publish R's adapter in one commit, and check it
	@$(PUBREP) publish "$$PUBREP_RUNS"/'$*' $(PUBLISH_AS)

publish: $(READY) ## publish every scored recipe, in the order of their chain
	@$(PUBREP) publish --all $(PUBLISH_AS)

export-%: $(READY) ## R's adapter for CPU hosts: [FORMAT="int8 ct2" PUBLISH=1 …]
	@$(PUBREP) export "$$PUBREP_RUNS"/'$*' $(EXPORT_AS)

export: $(READY) ## the same of a published one: ADAPTER=owner/name FORMAT=int8
	@[ -n $(call quoted,ADAPTER) ] || { echo 'error: no adapter was named: make export ADAPTER=owner/name FORMAT=int8' >&2; exit 1; }
	$(PUBREP) export $(call option,ADAPTER,adapter) $(call option,REVISION,revision) $(EXPORT_AS)

export-results: $(READY) ## scores for others' tools: ADAPTER= FORMAT=lm-eval INTO=folder
	@[ -n $(call quoted,ADAPTER) ] && [ -n $(call quoted,INTO) ] || { echo 'error: name an adapter and a folder: make export-results ADAPTER=owner/name FORMAT=lm-eval INTO=folder' >&2; exit 1; }
	$(PUBREP) export-results $(call quoted,ADAPTER) $(call option,FORMAT,format) $(call option,INTO,into) \
		$(call option,REVISION,revision) $(HUB_OPTION) $(ARGUMENTS)

reproduce: $(READY) ## check numbers: ADAPTER=owner/name [LEVEL=score|prefill]
	@[ -n $(call quoted,ADAPTER) ] || { echo 'UNCHECKED no adapter was named: make reproduce ADAPTER=owner/name'; exit 2; }
	$(PUBREP) reproduce $(call quoted,ADAPTER) $(call option,LEVEL,level) $(CHECK_AS)

vouch: $(READY) ## propose your verdict to ADAPTER=owner/name: [LEVEL= KEY= …]
	@[ -n $(call quoted,ADAPTER) ] || { echo 'error: no adapter was named: make vouch ADAPTER=owner/name' >&2; exit 1; }
	$(PUBREP) vouch $(call quoted,ADAPTER) $(call option,REVISION,revision) $(call option,LEVEL,level) \
		$(call option,SAMPLE,sample) $(call option,KEY,key) $(call switch,IDENTITY,identity) \
		$(call option,IDENTITY_TOKEN,identity-token) $(call option,TRUST_CONFIG,trust-config) $(call option,DATASET,dataset) $(HUB_OPTION) $(ARGUMENTS)

retrain: $(READY) ## train it again from its record, and compare: ADAPTER=
	@[ -n $(call quoted,ADAPTER) ] || { echo 'UNCHECKED no adapter was named: make retrain ADAPTER=owner/name'; exit 2; }
	$(PUBREP) retrain $(call quoted,ADAPTER) $(CHECK_AS)

check: $(READY) ## score anybody's adapter: ADAPTER= RECIPE= [CLAIM=rougeL=0.2 …]
	@[ -n $(call quoted,ADAPTER) ] || { echo 'UNCHECKED no adapter was named: make check ADAPTER=owner/name RECIPE=finance'; exit 2; }
	$(PUBREP) check $(call quoted,ADAPTER) $(call option,ACCELERATE,accelerate) $(call option,REVISION,revision) $(call option,RECIPE,recipe) \
		$(foreach word,$(subst ','\'',$(value CLAIM)),--claim '$(word)') $(call option,TOLERANCE,tolerance) \
		$(call switch,MODEL,model) $(call option,BASE,base) $(call option,CARD,card) $(call option,RECORD,record) \
		$(HUB_OPTION) $(ARGUMENTS)

withdraw: $(READY) ## mark a bad version: ADAPTER=owner/name REVISION=v2 WHY="…"
	@[ -n $(call quoted,ADAPTER) ] || { echo 'error: no adapter was named: make withdraw ADAPTER=owner/name REVISION=v2 WHY="…"' >&2; exit 1; }
	$(PUBREP) withdraw $(call quoted,ADAPTER)@$(call quoted,REVISION) $(call option,WHY,why) $(HUB_OPTION) $(ARGUMENTS)

serve: $(READY) ## answer over HTTP as OpenAI does: ADAPTER="a b" [HOST= PORT=]
	@[ -n $(call quoted,ADAPTER) ] || { echo 'error: no adapter was named: make serve ADAPTER=owner/name' >&2; exit 1; }
	exec $(PUBREP) serve $(call each,ADAPTER) $(call option,HOST,host) $(call option,PORT,port) $(HUB_OPTION) $(ARGUMENTS)

compare: $(READY) ## base models next to each other: [RECIPES="finance finance-xl"]
	@$(PUBREP) compare $(foreach name,$(value RECIPES),"$$PUBREP_RUNS"/'$(name)') $(call option,INTO,into) $(ARGUMENTS)

report: $(READY) ## all scored runs on one page: [RECIPES= | ADAPTERS= INTO=]
	@$(PUBREP) report $(or $(call each,ADAPTERS),$(foreach name,$(value RECIPES),"$$PUBREP_RUNS"/'$(name)')) \
		$(call option,INTO,into) $(HUB_OPTION) $(ARGUMENTS)

# The page is an extra.
$(READY)-space: requirements-space.txt $(READY)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-space.txt
	touch $@

space: $(READY)-space ## try an adapter in a browser: ADAPTER=owner/name [PORT=]
	@[ -n $(call quoted,ADAPTER) ] || { echo 'error: no adapter was named: make space ADAPTER=owner/name' >&2; exit 1; }
	$(PUBREP) space $(call quoted,ADAPTER) $(call option,REVISION,revision) $(call option,PORT,port) $(HUB_OPTION) $(ARGUMENTS)

publish-space: $(READY) ## publish that page as a Space: ADAPTER= [SPACE= PRIVATE=1]
	@[ -n $(call quoted,ADAPTER) ] || { echo 'error: no adapter was named: make publish-space ADAPTER=owner/name' >&2; exit 1; }
	$(PUBREP) publish-space $(call quoted,ADAPTER) $(call option,HUB_USER,user) $(call option,REVISION,revision) \
		$(call option,SPACE,space) $(call switch,PRIVATE,private) $(HUB_OPTION) $(ARGUMENTS)

publish-data: $(READY) ## rows of your own to the Hub: ROWS= DATASET= [PUBLIC=1]
	@[ -n $(call quoted,ROWS) ] && [ -n $(call quoted,DATASET) ] || { echo 'error: name a run, file or folder and a repository: make publish-data ROWS=runs/mine DATASET=owner/name' >&2; exit 1; }
	$(PUBREP) publish-data $(call quoted,ROWS) $(call quoted,DATASET) $(call switch,PUBLIC,public) $(HUB_OPTION) $(ARGUMENTS)

hub: $(READY) ## the local Hub in the foreground: [PORT=]
	@$(PUBREP) hub $(call option,PORT,port) $(ARGUMENTS)

claims: $(READY) ## README's results from the Hub: [CHECK=1 LEVEL=score]
	@$(PUBREP) claims $(call switch,CHECK,check) $(call option,LEVEL,level) $(HUB_OPTION) $(ARGUMENTS)

readme: $(READY) ## render README's tables, without any Hub
	@$(PUBREP) readme $(ARGUMENTS)

# Signatures, energy, CTranslate2, the Space and the browser are extras: what they need is installed where they are tested.
EXTRAS := requirements-signing.txt requirements-energy.txt requirements-ctranslate2.txt \
	requirements-space.txt requirements-browser.txt
$(READY)-extras: $(EXTRAS) $(READY)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check $(addprefix -r ,$(EXTRAS))
	touch $@

bench: $(READY) ## measure this project next to its peers (long): [DEVICE=cuda]
	@$(PUBREP) bench $(call option,DEVICE,device) $(ARGUMENTS)
	$(PUBREP) readme

# From Python 3.12 on it costs next to nothing; the tracer that 3.11 needs slows all Python code down.
COVERAGE = $(shell $(PY) -c 'import sys; sys.version_info < (3, 12) or print("--cov --cov-report=term:skip-covered")')
test: $(READY)-extras ## run the tests
	@$(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations 15 $(COVERAGE) $(ARGUMENTS)

conformance: $(READY) ## huggingface_hub's own tests against the local Hub
	@$(PY) tests/conformance/run.py $(ARGUMENTS)

lint: $(READY) ## check style, spelling, types, and which room imports which
	@$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell
	$(VENV)/bin/mypy
