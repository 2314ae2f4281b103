"""Python's fits on the matrix that fit.rs left: XGBoost, scikit-learn's forest and logistic regression, in CPU seconds."""

import argparse
import json
import resource
from pathlib import Path

import numpy
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trees", type=int, required=True, help="of the forest; its time is scaled to 200")
    args = parser.parse_args()
    own = json.loads((args.folder / "own.json").read_text())
    label = numpy.fromfile(args.folder / "labels", dtype=numpy.uint8)
    matrix = numpy.fromfile(args.folder / "features", dtype=numpy.float32).reshape(len(label), own["columns"])
    spent = {}

    def timed(name, fit, scale=1.0):
        before = cpu()
        fit()
        spent[name] = (cpu() - before) * scale

    options = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.1, "nthread": 2, "tree_method": "hist"}
    timed("xgboost", lambda: xgboost.train(options, xgboost.DMatrix(matrix, label=label), 200))
    filled = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True)).fit_transform(matrix)
    forest = RandomForestClassifier(args.trees, max_depth=15, min_samples_leaf=20, n_jobs=2, random_state=1)
    timed("random_forest", lambda: forest.fit(filled, label), 200 / args.trees)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    timed("logistic_regression", lambda: linear.fit(filled, label))

    print(f"{own['rows']:,} rows of {own['columns']} features, {own['positives']:,} positive; CPU seconds of one fit")
    print("| member | forewarn | Python | ratio |\n|---|---|---|---|")
    for name, seconds in [*spent.items(), ("together", sum(spent.values()))]:
        mine = own["cpu_seconds"].get(name, sum(own["cpu_seconds"].values()))
        print(f"| {name} | {mine:.1f} | {seconds:.1f} | {mine / seconds:.2f} |")


if __name__ == "__main__":
    main()
