"""The trees of a model in other evaluators, one thread, a block of rows and one row, beside what `cargo bench` measured."""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy
import onnxruntime
import treelite
import xgboost
from onnxmltools.convert import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

SECONDS = 2


def micros(call, rows):
    """Median time of a call in µs a row."""
    call()
    times, until = [], time.perf_counter() + SECONDS
    while time.perf_counter() < until or len(times) < 5:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) / rows * 1e6


def evaluators(file, columns):
    booster = xgboost.Booster(model_file=file)
    booster.feature_names = None
    booster.set_param({"nthread": 1})
    model = treelite.frontend.load_xgboost_model(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # The converter knows the classifier's objective only, and asks for names like f0.
    forest = json.loads(Path(file).read_text())
    learner = forest["learner"]
    learner["feature_names"] = [f"f{i}" for i in range(columns)]
    renamed = Path(file).with_suffix(".renamed.json")
    renamed.write_text(json.dumps(forest))
    is_classifier = learner["objective"]["name"] == "binary:logistic"
    wrapped = xgboost.XGBClassifier() if is_classifier else xgboost.XGBRegressor()
    wrapped.load_model(renamed)
    converted = convert_xgboost(wrapped, initial_types=[("x", FloatTensorType([None, columns]))])
    session = onnxruntime.InferenceSession(converted.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = [session.get_outputs()[-1].name]
    return {
        "XGBoost inplace_predict": booster.inplace_predict,
        "ONNX Runtime": lambda rows: session.run(outputs, {"x": rows}),
        "treelite": lambda rows: treelite.gtil.predict(model, rows, nthread=1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with rows, xgboost.json and random_forest.json")
    parser.add_argument("criterion", type=Path, help="what cargo bench left")
    args = parser.parse_args()
    print("| trees | evaluator | µs a row in a block of 1,000 | one row alone, µs |\n|---|---|---|---|")
    for member in ["xgboost", "random_forest"]:
        file = str(args.folder / f"{member}.json")
        columns = int(json.loads(Path(file).read_text())["learner"]["learner_model_param"]["num_feature"])
        rows = numpy.fromfile(args.folder / "rows", dtype=numpy.float32).reshape(-1, columns)
        estimate = json.loads((args.criterion / f"ensemble/{member}, block/new/estimates.json").read_text())
        print(f"| {member} | forewarn | {estimate['median']['point_estimate'] / 1000 / len(rows):.2f} | |", flush=True)
        for name, call in evaluators(file, columns).items():
            print(f"| {member} | {name} | {micros(lambda: call(rows), len(rows)):.2f} | {micros(lambda: call(rows[:1]), 1):.0f} |", flush=True)
    one = json.loads((args.criterion / "ensemble/full, one row/new/estimates.json").read_text())
    both = json.loads((args.criterion / "ensemble/full, block/new/estimates.json").read_text())
    print(f"| all members, calibrated | forewarn | {both['median']['point_estimate'] / 1e6:.2f} | {one['median']['point_estimate'] / 1e3:.1f} |")


if __name__ == "__main__":
    main()
