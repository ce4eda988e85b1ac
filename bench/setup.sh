#!/usr/bin/env bash
# Prepares bench/work: the real Taobao sample scaled to 19,854,000 rows, and Apache Flink from PyPI with its runner.
# Needs python3.11, a JDK 17 and the folder of the peers (default ../shared/peers); about 5 GB of disk.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
peers=$(cd "${1:-$here/../../shared/peers}" && pwd)
mkdir -p "$here/work" && cd "$here/work"
[ -d flink ] || { python3 -m venv flink && flink/bin/pip -q install apache-flink==2.3.0; }
[ -d batch ] || { python3 -m venv batch && batch/bin/pip -q install duckdb==2.0.0 pyarrow numpy pandas; }
home=$(flink/bin/python -c 'import pyflink, os; print(os.path.dirname(pyflink.__file__))')
mkdir -p classes && javac -cp "$home/lib/*" -d classes "$peers/flink/Run.java"
[ -f ub20m/csv1/all.csv ] || {
  zcat "$peers/../data/taobao/UserBehavior.csv.gz" > UserBehavior.csv
  batch/bin/python "$peers/gen_userbehavior.py" UserBehavior.csv ub20m
}
echo "ready; now: make bench"
