"""The Python side of tests/interchange.sh: what a user of XGBoost does with forewarn's files."""

import argparse
import json

import numpy
import pyarrow.parquet
import xgboost

TOLERANCE = 1e-6


def read(path):
    """The table, the names of its feature columns, and their matrix with NaN where missing."""
    table = pyarrow.parquet.read_table(path)
    names = [feature["name"] for feature in json.loads(table.schema.metadata[b"forewarn"])["features"]]
    columns = [table[name].to_numpy() for name in names]
    return table, names, numpy.column_stack(columns).astype(numpy.float32)


def compare(args):
    """forewarn's tree members, loaded by XGBoost, score every row of a dataset as forewarn does."""
    table, names, matrix = read(args.dataset)
    rows = xgboost.DMatrix(matrix, feature_names=names)
    margin = table["score_xgboost"].to_numpy()
    for file, ours in [
        (args.xgboost, 1 / (1 + numpy.exp(-margin))),
        (args.random_forest, table["score_random_forest"].to_numpy()),
    ]:
        theirs = xgboost.Booster(model_file=file).predict(rows)
        worst = float(numpy.abs(theirs - ours).max())
        print(f"{file}: {len(ours)} rows from {ours.min():.4f} to {ours.max():.4f}, largest difference {worst:.1e}")
        assert worst <= TOLERANCE, f"{worst} is more than {TOLERANCE}"
        assert ours.max() - ours.min() > 0.1, "scores that are all alike prove nothing"
    missing = numpy.isnan(matrix).mean()
    assert missing > 0, "without missing values half of the rules is untried"


def describe(args):
    """The dataset is what docs/interchange.md promises."""
    table, names, matrix = read(args.dataset)
    facts = json.loads(table.schema.metadata[b"forewarn"])
    types = {field.name: str(field.type) for field in table.schema}
    own = {"timestamp": "timestamp[ms, tz=UTC]", "target": "string", "slice": "string", "label": "int8", "weight": "float"}
    assert {name: types[name] for name in own} == own, types
    assert all(types[name] == "float" for name in names), types
    time, label, weight = (table[name].to_numpy() for name in ["timestamp", "label", "weight"])
    slices = numpy.array(table["slice"].to_pylist())
    assert (numpy.diff(time.astype("int64")) >= 0).all(), "rows are in time order"
    assert set(slices) == {"fit", "embargo", "calibrate", "test"}, set(slices)
    assert time[slices == "fit"].max() < time[slices == "calibrate"].min() < time[slices == "test"].min()
    assert set(label) == {0, 1} and abs(label.mean() - facts["base_rate"]) < 1e-12
    assert abs(weight[slices == "fit"].mean() - 1) < 1e-3 and (weight[slices != "fit"] == 1).all()
    assert len(label) == facts["labels"]["rows"] and matrix.shape[1] == len(names)
    groups = pyarrow.parquet.ParquetFile(args.dataset).num_row_groups
    print(f"{args.dataset}: {len(label)} rows, {len(names)} features, {groups} row groups, base rate {label.mean():.4f}")


def train(args):
    """Boosted trees on the slice to fit, as on any cluster; --rename makes a model of other features."""
    table, names, matrix = read(args.dataset)
    fit = numpy.array(table["slice"].to_pylist()) == "fit"
    # In another order, as some engines give them.
    order = numpy.argsort(names)
    shown = [names[column] for column in order]
    if args.rename:
        shown[0] = args.rename
    rows = xgboost.DMatrix(
        matrix[fit][:, order],
        label=table["label"].to_numpy()[fit],
        weight=table["weight"].to_numpy()[fit],
        feature_names=shown,
    )
    options = {"objective": "binary:logistic", "max_depth": 5, "eta": 0.1, "nthread": 2, "min_child_weight": 50}
    xgboost.train(options, rows, num_boost_round=60).save_model(args.output)


parser = argparse.ArgumentParser(description=__doc__)
commands = parser.add_subparsers(required=True)
for run, arguments in [
    (compare, ["dataset", "xgboost", "random_forest"]),
    (describe, ["dataset"]),
    (train, ["dataset", "output"]),
]:
    command = commands.add_parser(run.__name__, help=run.__doc__)
    command.set_defaults(run=run)
    for argument in arguments:
        command.add_argument(argument)
    if run is train:
        command.add_argument("--rename")
chosen = parser.parse_args()
chosen.run(chosen)
