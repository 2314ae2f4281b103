#!/usr/bin/env python3
"""The table of benches/test-fleet.sh: claims, what was measured, and what the oracle reaches.

usage: test-fleet.py REPORT.json [FOR=REPORT.json...]   (of `forewarn backtest --output json`, with other `alerting.for`)
"""

import json
import sys

UNSEEN = "pool_exhaustion"
UNFORESEEABLE = "_without_precursor"


def show(value, digits=3):
    return "-" if value is None else f"{value:.{digits}f}"


def ratio(part, whole):
    return part / whole if whole else None


def f1(precision, recall):
    if precision is None or recall is None or precision + recall == 0:
        return None
    return 2 * precision * recall / (precision + recall)


def main(path, *others):
    with open(path) as file:
        report = json.load(file)
    oracle = report["oracle"]
    modes = {mode: one["incidents"] for mode, one in report["by_failure_mode"].items()}
    foreseeable = {mode for mode in modes if not mode.endswith(UNFORESEEABLE)}

    def recall(point, of):
        of = [mode for mode in of if mode in modes]
        return ratio(sum(point["foreseen_by_failure_mode"][mode] for mode in of), sum(modes[mode] for mode in of))

    announced = sum(modes[mode] for mode in foreseeable)
    print(
        f"{report['incidents']} incidents, {announced} with a precursor; {report['rows']} rows, "
        f"base rate {100 * report['base_rate']:.2f} %\n"
    )

    row = "{:<44}{:>9}{:>9}{:>9}{:>14}{:>9}"
    print(row.format("", "claim", "ours", "oracle", "0.9 x oracle", "reached"))
    verdicts = []

    def line(name, claim, ours, best, reached=None, target=None):
        bar = None if best is None else 0.9 * best
        if reached is None and claim is not None:
            reached = ours is not None and (ours >= claim or (bar is not None and ours >= bar))
        if reached is not None:
            verdicts.append(reached)
        print(
            row.format(
                name,
                target or show(claim, 2),
                show(ours),
                show(best),
                show(bar) if claim is not None else "-",
                "-" if reached is None else "yes" if reached else "NO",
            )
        )

    ensemble = report["ensemble"]
    line("ROC AUC", 0.93, ensemble["roc_auc"], oracle["roc_auc"])
    line("average precision", None, ensemble["average_precision"], oracle["average_precision"])
    for key in ("at_precision_089", "at_threshold"):
        ours, best = report[key], oracle[key]
        recalls = [recall(point, foreseeable) for point in (ours, best)]
        print(key)
        line("  precision", 0.89, ours["precision"], best["precision"])
        line("  recall, incidents with a precursor", 0.85, *recalls)
        line("  F1 of these two", 0.87, f1(ours["precision"], recalls[0]), f1(best["precision"], recalls[1]))
        line("  recall, all incidents", None, ours["recall"], best["recall"])
        line("  false alarms per target-week", None, ours["false_alarms_per_target_week"], best["false_alarms_per_target_week"])
        leads = [point["lead_time_seconds"]["p50"] for point in (ours, best)]
        minutes = [None if lead is None else lead / 60 for lead in leads]
        needed = report["horizon_seconds"] / 120
        line("  median lead time, minutes", None, *minutes, minutes[0] is not None and minutes[0] >= needed, f">={needed:.0f}")
    print("calibration")
    ece, slope, skill = (ensemble[key] for key in ("ece", "calibration_slope", "brier_skill"))
    line("  expected calibration error", None, ece, oracle["ece"], ece is not None and ece <= 0.02, "<=0.02")
    line("  slope", None, slope, oracle["calibration_slope"], slope is not None and 0.8 <= slope <= 1.25, "0.8-1.25")
    line("  Brier skill", None, skill, oracle["brier_skill"], skill is not None and skill > 0, ">0")

    members = {name: one["average_precision"] for name, one in report["members"].items()}
    best = max(members, key=lambda name: members[name] or 0)
    line(f"ensemble's AP, at least {best}'s", members[best], ensemble["average_precision"], None)

    baselines = report["baselines"]
    budgets = sorted(report["at_budget"], key=float)
    rules = {"ensemble": report, **baselines, **report["compared"], "oracle": oracle}
    for title, of in (("all incidents", set(modes)), (f"the mode never seen in training, {UNSEEN}", {UNSEEN})):
        if not of & set(modes):
            continue
        count = sum(modes.get(mode, 0) for mode in of)
        print(f"\nrecall over {title} ({count}), at most so many false alarms per target-week")
        print(f"{'':<24}" + "".join(f"{budget:>9}" for budget in budgets))
        for name, rule in rules.items():
            print(f"{name:<24}" + "".join(f"{show(recall(rule['at_budget'][b], of)):>9}" for b in budgets))
        rivals = ["predict_linear"] if of == {UNSEEN} else list(baselines)
        for budget in budgets:
            ours = recall(report["at_budget"][budget], of)
            ahead = [name for name in rivals if recall(baselines[name]["at_budget"][budget], of) > ours]
            verdicts.append(not ahead)
            if ahead:
                print(f"NO: at {budget}, {', '.join(ahead)} foresees more")

    print(f"\n{'failure modes, chosen threshold':<44}{'ours':>9}{'oracle':>9}{'lead p50':>9}")
    for mode, one in report["by_failure_mode"].items():
        lead = one["lead_time_seconds"]["p50"]
        cells = [f"{n}/{one['incidents']}" for n in (one["foreseen"], oracle["at_threshold"]["foreseen_by_failure_mode"][mode])]
        print(f"{mode:<44}{cells[0]:>9}{cells[1]:>9}{'-' if lead is None else f'{lead / 60:.0f}m':>9}")

    if others:
        print(f"\n{'at a precision of 0.89, by alerting.for':<44}{'recall':>9}{'oracle':>9}{'lead p50':>9}{'oracle':>9}")
    for other in others:
        waits, path = other.split("=", 1)
        with open(path) as file:
            other = json.load(file)
        points = [one["at_precision_089"] for one in (other, other["oracle"])]
        recalls = [show(recall(point, foreseeable)) for point in points]
        leads = [point["lead_time_seconds"]["p50"] for point in points]
        leads = ["-" if lead is None else f"{lead / 60:.0f}m" for lead in leads]
        print(f"{waits:<44}{recalls[0]:>9}{recalls[1]:>9}{leads[0]:>9}{leads[1]:>9}")

    print(f"\nreached: {sum(verdicts)} of {len(verdicts)}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
