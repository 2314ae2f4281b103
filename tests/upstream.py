"""The Python side of tests/upstream.sh: whether two servers lead to the same training matrix."""

import argparse
import json

import numpy
import pyarrow.parquet

# Servers print samples as decimals of their float64; features are float32.
TOLERANCE = 1e-5


def read(path):
    """Rows by (time, target); the names of the feature columns and their values; the labels."""
    table = pyarrow.parquet.read_table(path)
    names = [feature["name"] for feature in json.loads(table.schema.metadata[b"forewarn"])["features"]]
    values = numpy.column_stack([table[name].to_numpy() for name in names]).astype(numpy.float64)
    rows = list(zip(table["timestamp"].to_pylist(), table["target"].to_pylist()))
    return rows, names, values, table["label"].to_pylist()


parser = argparse.ArgumentParser()
parser.add_argument("ours")
parser.add_argument("theirs")
parser.add_argument("--differs", type=float, default=0.0, help="share of the rows that may differ")
args = parser.parse_args()

rows, names, ours, labels = read(args.ours)
other_rows, other_names, theirs, other_labels = read(args.theirs)
assert names == other_names and rows == other_rows, "the rows are not those of the same targets and times"
assert labels == other_labels, "labels differ"
assert len(rows) > 10_000 and sum(labels) > 0, "too little history proves nothing"
assert numpy.nanstd(ours, axis=0).min() > 0, "a feature is constant"
missing = numpy.isnan(ours) != numpy.isnan(theirs)
scale = numpy.maximum(1, numpy.maximum(abs(ours), abs(theirs)))
apart = numpy.nan_to_num(abs(ours - theirs)) > TOLERANCE * scale
share = (missing | apart).any(axis=1).mean()
print(f"{len(rows)} rows, {len(names)} features; {share:.2%} of the rows differ: ", end="")
print(f"{missing.sum()} values are there on one side only, {apart.sum()} are others")
assert share <= args.differs, f"more than {args.differs:.2%}"
assert args.differs == 0 or share > 0, "no row differs: say so in docs/upstream.md, and compare strictly"
