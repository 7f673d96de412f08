# On a machine without ROS these targets bring their own (see tools/pip_ros); with ROS 2 Jazzy
# installed, plain `colcon build` does it.
PYTHON ?= python3
BIN := .venv/bin

# An installed ROS that this shell has sourced would mix with the one in .venv.
unexport PYTHONPATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
ifdef ROS_DISTRO
unexport LD_LIBRARY_PATH ROS_DISTRO
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format colcon lock clean

help: ## Show this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## ROS 2 Jazzy and our messages in .venv (TORCH='torch==...' for another torch)
	@$(PYTHON) tools/pip_ros/setup_venv.py $(if $(TORCH),--torch '$(TORCH)')

demo: setup ## A stereo stream through real DDS into the node; see out/demo
	@$(BIN)/python -m rsb_pose_ros.demo --out out/demo

test: lint ## Lint, then every test
	$(BIN)/python -m pytest test

lint: setup ## ruff, mypy, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Let ruff put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

colcon: setup ## colcon build and colcon test, as on a machine with ROS
	@tools/pip_ros/colcon.sh

lock: setup ## Write down the versions in .venv as tools/pip_ros/constraints.txt
	$(BIN)/python tools/pip_ros/lock.py

clean: ## Remove .venv and everything that was built
	rm -rf .venv build install log out *.egg-info tools/pip_ros/stand_ins/*.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
