# `make demo` and `make test` need nothing but Python: they make .venv and install all they use, inside this folder.
PYTHON ?= python3
# What flies is tested on each of these that the machine has; the first is JetPack 6's.
PYTHONS_ONBOARD ?= 3.10 3.11 3.12 3.13
python_of = $(shell for p in python$(1) $(PYTHON) $$HOME/.pyenv/versions/$(1).*/bin/python$(1); do \
	[ "$$("$$p" -c 'import sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$(1)" ] \
	&& echo "$$p" && exit; done)
BIN := .venv/bin
PIP_FLAGS := --quiet --disable-pip-version-check --no-warn-script-location -c constraints.txt
OUT ?= demo/out
SCENE ?=
TRAIN_FLAGS := --epochs 46 --calm-epochs 7 --teacher-epochs 24 --random-widths 1 --optimizer muon --precision bf16 --seed 0

.PHONY: demo test lint unit onboard onboard-legacy train clean
.PRECIOUS: .venv-onboard/%/.installed

demo: .venv/.installed
	$(BIN)/edgeslim demo $(SCENE) -o $(OUT)

test: lint unit onboard

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd benchmarks && ../$(BIN)/mypy --config-file mypy.ini
	$(BIN)/lint-imports

unit: .venv/.installed
	$(BIN)/python -m pytest $(addprefix --ignore ,$(LONG))

# Environments without torch and onnx: what flies must run there, a real artifact of the ground's included.
HERE = $(foreach v,$(PYTHONS_ONBOARD),$(if $(call python_of,$(v)),$(v)))
onboard: .venv/.installed
	$(eval FOUND := $(HERE))
	@for v in $(filter-out $(FOUND),$(PYTHONS_ONBOARD)); do echo "on board: no Python $$v on this machine: not tested on it"; done
	$(if $(FOUND),,$(error on board: found none of Python $(PYTHONS_ONBOARD), expected one))
	rm -rf .venv-onboard/artifacts
	$(BIN)/edgeslim export --encoder eurosat-rgb -w 0.25 --target onnx --target openvino --target tflite \
		--precision fp32 --precision fp16 --precision int8-dynamic -o .venv-onboard/artifacts
	$(MAKE) --no-print-directory $(addprefix onboard-,$(FOUND)) FULL="$(firstword $(FOUND))"
	$(if $(PYTHON_LEGACY),$(MAKE) --no-print-directory onboard-legacy,@echo "on board: $(NO_LEGACY): not tested with tflite-runtime")

# What takes most of the time runs once, on the oldest Python.
LONG := tests/cli/test_watch.py tests/onboard/odd tests/onboard/reading/test_reading_memory.py \
	tests/onboard/test_fuzz.py tests/onboard/test_memory.py tests/onboard/test_power_cuts.py
onboard-%: .venv-onboard/%/.installed
	.venv-onboard/$*/bin/python tests/onboard/environment.py
	@for a in .venv-onboard/artifacts/*; do echo "check $$a" && .venv-onboard/$*/bin/edgeslim check $$a || exit 1; done
	.venv-onboard/$*/bin/python -m pytest tests --ignore tests/ground $(if $(filter $*,$(FULL)),,$(addprefix --ignore ,$(LONG)))

# tflite-runtime, the predecessor of LiteRT: what it may fly, and what the golden tiles keep it from flying.
PYTHON_LEGACY = $(if $(filter Linux,$(shell uname -s)),$(firstword $(call python_of,3.11) $(call python_of,3.10)))
NO_LEGACY := no Linux with Python 3.11 or 3.10
LEGACY := .venv-onboard/legacy
onboard-legacy: $(LEGACY)/.installed
	rm -rf $(LEGACY)/map $(LEGACY)/scene.tif
	$(LEGACY)/bin/python -m tests.onboard.portable scene $(LEGACY)/scene.tif
	$(BIN)/edgeslim classify $(LEGACY)/scene.tif --artifact .venv-onboard/artifacts/tflite-fp32 -o $(LEGACY)/map
	$(LEGACY)/bin/python -m pytest tests/onboard/runtimes/test_legacy.py

# Remakes the embedded encoder from EuroSAT's RGB tiles (TILES=folder or zip); hours on two cores.
train: .venv/.installed
	$(BIN)/edgeslim train $(TILES) -o runs/eurosat-rgb $(TRAIN_FLAGS)

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_FLAGS) --upgrade pip
	$(BIN)/python -m pip install $(PIP_FLAGS) -e '.[ground,ground-openvino,ground-tflite,demo,dev]'
	touch $@

SHIPPED := $(shell git ls-files edgeslim devices profiles export jetpacks schemas)
# Installed as a wheel, not in place: the cards and weights must travel in it.
.venv-onboard/%/.installed: pyproject.toml constraints.txt $(SHIPPED)
	$(or $(call python_of,$*),$(error on board: found no Python $*)) -m venv .venv-onboard/$*
	.venv-onboard/$*/bin/python -m pip install $(PIP_FLAGS) --upgrade pip
	.venv-onboard/$*/bin/python -m pip install $(PIP_FLAGS) '.[onnx,openvino,tflite]' pytest hypothesis
	touch $@

$(LEGACY)/.installed: pyproject.toml constraints.txt constraints-legacy.txt $(SHIPPED)
	$(or $(PYTHON_LEGACY),$(error on board: found $(NO_LEGACY), expected what tflite-runtime has wheels for)) -m venv $(LEGACY)
	grep -v '^numpy==' constraints.txt | cat - constraints-legacy.txt >$(LEGACY)/constraints.txt
	$(LEGACY)/bin/python -m pip install $(PIP_FLAGS) --upgrade pip
	$(LEGACY)/bin/python -m pip install $(subst constraints.txt,$(LEGACY)/constraints.txt,$(PIP_FLAGS)) \
		'.[tflite-legacy]' pytest hypothesis
	touch $@

clean:
	rm -rf .venv .venv-onboard demo/out artifact plan.json
