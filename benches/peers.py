"""forewarn's members beside Python's, fitted and scored on the same rows of one dataset.

DATASET is what `forewarn dataset export --model DIR` wrote for the range that the model in DIR was trained on: the peers are
fitted on its slice `fit`, and both sides are judged on its slice `test`. The peers have the members' hyperparameters,
but for the penalty of the logistic regression.
Several are of the same range, by models of different seeds: chance alone moves a forest's ROC AUC by more than what is to be
told apart, so each is met by peers of another seed, and measures are means over them.
"""

import argparse
import json
import sys
import time

import numpy
import pyarrow.parquet
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MEMBERS = ["xgboost", "random_forest", "logistic_regression"]
MARGIN = 0.005
REPLICATES = 200


def sample(label, weight, most, random):
    """All positives and some negatives, whose weights make up for those left out: as `train.max_rows` does."""
    keep = min(1.0, max(most - label.sum(), label.sum()) / max((label == 0).sum(), 1))
    kept = (label == 1) | (random.random(len(label)) < keep)
    return kept, numpy.where(label == 1, weight, weight / keep)


def fit(matrix, label, weight, args, seed, random):
    """Name of each peer, and what scores rows with it."""
    started = time.monotonic()
    peers = {}

    def done(name, score, rows):
        nonlocal started
        print(f"{name}: fitted on {rows} rows in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        started = time.monotonic()
        peers[name] = score

    options = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.1, "nthread": 2, "tree_method": "hist"}
    options["min_child_weight"] = args.min_child_weight
    booster = xgboost.train(options, xgboost.DMatrix(matrix, label=label, weight=weight), 200)
    done("xgboost", lambda rows: booster.predict(xgboost.DMatrix(rows)), len(label))

    # scikit-learn's forest takes minutes per 100,000 rows.
    kept, heavier = sample(label, weight, args.max_rows, random)
    forest = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        RandomForestClassifier(
            200, max_depth=15, min_samples_leaf=args.min_samples_leaf, n_jobs=2, random_state=seed
        ),
    )
    forest.fit(matrix[kept], label[kept], randomforestclassifier__sample_weight=heavier[kept])
    done("random_forest", lambda rows: forest.predict_proba(rows)[:, 1], kept.sum())

    linear = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(C=1.0, max_iter=1000),
    )
    linear.fit(matrix[kept], label[kept], logisticregression__sample_weight=heavier[kept])
    done("logistic_regression", lambda rows: linear.predict_proba(rows)[:, 1], kept.sum())
    return peers


class Ranking:
    """ROC AUC and average precision of one score, for any weights of the rows."""

    def __init__(self, score, label):
        self.order = numpy.argsort(-score, kind="stable")
        sorted_score = score[self.order]
        self.ends = numpy.flatnonzero(numpy.append(numpy.diff(sorted_score) != 0, True))
        self.positive = label[self.order] == 1

    def measures(self, weight):
        weight = weight[self.order]
        true = numpy.cumsum(numpy.where(self.positive, weight, 0))[self.ends]
        false = numpy.cumsum(numpy.where(self.positive, 0, weight))[self.ends]
        if true[-1] == 0 or false[-1] == 0:
            return numpy.array([numpy.nan, numpy.nan])
        step = numpy.diff(true, prepend=0)
        auc = numpy.sum(numpy.diff(false, prepend=0) * (true - step / 2)) / (true[-1] * false[-1])
        found = true + false
        precision = numpy.divide(true, found, out=numpy.zeros_like(true), where=found > 0)
        return numpy.array([auc, numpy.sum(step * precision) / true[-1]])


def clusters(table, rows):
    """A number for each target's day: rows of one day resemble each other."""
    day = table["timestamp"].to_numpy()[rows].astype("datetime64[D]").astype(int)
    target = numpy.unique(numpy.array(table["target"].to_pylist())[rows], return_inverse=True)[1]
    return numpy.unique(target * 1_000_000 + day, return_inverse=True)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", nargs="+")
    parser.add_argument("--max-rows", type=int, default=120_000, help="rows that forest and linear member are fitted on")
    parser.add_argument("--min-child-weight", type=float, default=15)
    parser.add_argument("--min-samples-leaf", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--levels", action="store_true", help="let the peers see the levels, which forewarn's ensemble does not")
    parser.add_argument("--output", help="write the figures as JSON to this file")
    parser.add_argument("--judge", action="store_true", help=f"exit with 1 where forewarn is clearly more than {MARGIN} below")
    args = parser.parse_args()

    random = numpy.random.default_rng(args.seed)
    rankings = {}
    for seed, dataset in enumerate(args.dataset, args.seed):
        table = pyarrow.parquet.read_table(dataset)
        facts = json.loads(table.schema.metadata[b"forewarn"])
        names = [feature["name"] for feature in facts["features"] if args.levels or feature["name"] not in facts["levels"]]
        matrix = numpy.column_stack([table[name].to_numpy() for name in names]).astype(numpy.float32)
        label, weight = table["label"].to_numpy(), table["weight"].to_numpy()
        slices = numpy.array(table["slice"].to_pylist())
        fitted, test = slices == "fit", slices == "test"
        if rankings and not numpy.array_equal(label[test], truth):
            sys.exit(f"{dataset}: its slice test is not that of {args.dataset[0]}")
        truth, cluster = label[test], clusters(table, test)
        peers = fit(matrix[fitted], label[fitted], weight[fitted], args, seed, random)
        scores = {f"forewarn {name}": table[f"score_{name}"].to_numpy()[test] for name in ["ensemble", *MEMBERS]}
        scores |= {f"python {name}": score(matrix[test]) for name, score in peers.items()}
        for name, score in scores.items():
            rankings.setdefault(name, []).append(Ranking(score, truth))

    def measures(weight):
        return {name: numpy.mean([one.measures(weight) for one in ranking], axis=0) for name, ranking in rankings.items()}

    figures = measures(numpy.ones(len(truth)))
    drawn = {name: [] for name in rankings}
    days = cluster.max() + 1
    for _ in range(REPLICATES):
        times = numpy.bincount(random.integers(0, days, days), minlength=days)[cluster].astype(float)
        for name, drawn_measures in measures(times).items():
            drawn[name].append(drawn_measures)

    result = {"rows": int(test.sum()), "base_rate": float(truth.mean()), "features": len(names), "scores": {}, "differences": {}}
    print(f"{int(fitted.sum())} rows to fit, {int(test.sum())} to test, base rate {truth.mean():.4f}, {len(names)} features")
    print(f"{'':32}{'ROC AUC':>10}{'AP':>10}")
    for name, (auc, precision) in figures.items():
        print(f"{name:32}{auc:10.4f}{precision:10.4f}")
        result["scores"][name] = {"roc_auc": float(auc), "average_precision": float(precision)}
    print(f"\nforewarn minus Python, 95 % interval by {REPLICATES} bootstrap draws of {days} target-days")
    below = False
    pairs = [(member, member) for member in MEMBERS] + [("ensemble", member) for member in MEMBERS]
    for ours, theirs in pairs:
        change = numpy.array(drawn[f"forewarn {ours}"]) - numpy.array(drawn[f"python {theirs}"])
        for column, measure in enumerate(["roc_auc", "average_precision"]):
            difference = figures[f"forewarn {ours}"][column] - figures[f"python {theirs}"][column]
            low, high = numpy.nanquantile(change[:, column], [0.025, 0.975])
            # Members are judged against their own kind.
            worse = ours == theirs and difference < -MARGIN
            clearly = worse and high < 0
            below |= clearly
            verdict = "BELOW" if clearly else "below, within the interval" if worse else ""
            print(f"{ours:20} - {theirs:20} {measure:18}{difference:+8.4f}  [{low:+.4f}, {high:+.4f}]  {verdict}")
            result["differences"][f"{ours} - {theirs} {measure}"] = [float(difference), float(low), float(high)]
    if args.output:
        with open(args.output, "w") as file:
            json.dump(result, file, indent=1)
    sys.exit(1 if below and args.judge else 0)


main()
