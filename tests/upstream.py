"""The Python side of tests/upstream.sh: whether two servers lead to the same training matrix."""

import argparse
import json

import numpy
import pyarrow.parquet

# Servers print samples as decimals of their float64; features are float32.
TOLERANCE = 1e-5


def read(path):
    """The (time, target) of each row, the names of the feature columns, their values, and the labels."""
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
assert names == other_names, "the features are not the same"
assert len(rows) > 10_000 and sum(labels) > 0, "too little history proves nothing"
assert numpy.nanstd(ours, axis=0).min() > 0, "a feature is constant"

# A row inside an incident is left out, so that where a server sees another end of it, one side has the row alone.
index, other_index = ({row: i for i, row in enumerate(side)} for side in (rows, other_rows))
both = [row for row in rows if row in other_index]
here, there = ([side[row] for row in both] for side in (index, other_index))
alone = len(rows) + len(other_rows) - 2 * len(both)
ours, theirs = ours[here], theirs[there]
relabelled = numpy.array(labels)[here] != numpy.array(other_labels)[there]
missing = numpy.isnan(ours) != numpy.isnan(theirs)
scale = numpy.maximum(1, numpy.maximum(abs(ours), abs(theirs)))
apart = numpy.nan_to_num(abs(ours - theirs)) > TOLERANCE * scale
differing = (missing | apart).any(axis=1) | relabelled
share = (differing.sum() + alone) / (len(both) + alone)
print(f"{len(both) + alone} rows, {len(names)} features; {share:.2%} of the rows differ: {alone} rows and ", end="")
print(f"{missing.sum()} values are there on one side only, {apart.sum()} values and {relabelled.sum()} labels are others")
assert share <= args.differs, f"more than {args.differs:.2%}"
assert args.differs == 0 or share > 0, "no row differs: say so in docs/upstream.md, and compare strictly"
