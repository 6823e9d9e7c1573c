"""Figures that the paper prints, in percent, as plain data.

Of MNLI the paper has matched and mismatched accuracy. Metrics are those of our registry: F1 of MRPC
and QQP, macro F1 of CB for encoders, accuracy of CB for decoders.
"""

from __future__ import annotations

BASE, LARGE, ROBERTA = "bert-base-cased", "bert-large-cased", "roberta-base"
OPT_SMALL, OPT_LARGE = "facebook/opt-1.3b", "facebook/opt-6.7b"
#: tasks of table 1 in its order, by the metric that it prints
GLUE = {
    "sst2": "accuracy", "rte": "accuracy", "qqp": "f1", "qnli": "accuracy",
    "mnli": "accuracy_matched", "mnli-mm": "accuracy_mismatched", "cola": "matthews",
    "mrpc": "f1", "stsb": "spearman",
}  # fmt: skip
#: table 1: regime -> bias -> figures of `GLUE`
TABLE1 = {
    "low": {
        "v": (85.8, 59.5, 68.8, 73.8, 43.8, 45.7, 43.2, 84.0, 75.6),
        "q": (80.0, 46.9, 65.1, 67.7, 40.1, 40.5, 30.8, 81.1, 67.8),
        "k": (77.2, 46.5, 60.5, 66.9, 39.5, 40.1, 6.5, 79.2, 65.4),
    },
    "medium": {
        "v": (87.2, 65.7, 73.5, 79.3, 58.3, 59.8, 46.3, 84.1, 83.4),
        "q": (85.4, 58.1, 69.3, 72.9, 45.0, 46.4, 36.1, 83.1, 73.3),
        "k": (79.7, 54.5, 0.0, 67.6, 41.4, 42.1, 20.3, 80.8, 67.1),
    },
    "high": {
        "v": (88.1, 62.8, 74.4, 80.8, 62.2, 64.2, 42.1, 85.5, 85.1),
        "q": (85.8, 58.4, 71.8, 76.6, 47.8, 48.5, 32.9, 84.2, 76.9),
        "k": (81.6, 53.0, 12.9, 68.1, 42.1, 42.1, 6.5, 78.8, 68.7),
    },
}
#: table 2, RTE low: what trains -> accuracy, its deviation, seconds on a T4, percent of scalars
TABLE2 = {
    "v": (58.53, 1.88, 132.9, 0.01),
    "rand": (50.40, 2.94, 659.6, 0.01),
    "all": (56.40, 2.88, 144.9, 0.09),
    "full": (57.46, 2.20, 206.1, 100.0),
}
#: table 3: b_v of SST-2 and RTE, low: row -> accuracy on SST-2 and on RTE
TABLE3 = {"own": (85.8, 59.5), "mean": (81.3, 55.5), "other": (48.8, 46.2), "none": (48.9, 52.7)}
#: table 4: model -> bias -> SST-2, RTE, CB, WiC
TABLE4 = {
    BASE: {
        "v": (85.8, 59.5, 59.0, 69.6), "q": (80.0, 46.9, 47.2, 66.1), "k": (77.2, 46.5, 43.3, 62.8),
    },
    ROBERTA: {
        "v": (88.6, 56.7, 90.5, 62.1), "q": (87.0, 56.3, 85.0, 57.8), "k": (72.0, 52.3, 76.2, 57.9),
    },
    LARGE: {
        "v": (89.2, 60.6, 58.7, 66.6), "q": (83.8, 53.4, 50.9, 61.2), "k": (69.3, 53.4, 26.6, 61.2),
    },
}  # fmt: skip
TABLE4_TASKS = {"sst2": "accuracy", "rte": "accuracy", "cb": "macro_f1", "wic": "accuracy"}
TABLE5_TASKS = {
    **dict.fromkeys(("sst2", "rte", "cb", "boolq", "wsc", "wic", "multirc"), "accuracy"),
    **dict.fromkeys(("copa", "record"), "accuracy"),
    **dict.fromkeys(("squad", "drop"), "token_f1"),
}
#: table 5: model -> row -> figures of `TABLE5_TASKS`; the row of prefix tuning is not run here
TABLE5 = {
    OPT_SMALL: {
        "v": (93.1, 71.5, 80.3, 65.8, 63.5, 61.6, 69.0, 77.0, 71.5, 79.8, 28.2),
        "q": (72.7, 55.6, 71.4, 60.4, 62.5, 59.2, 56.3, 74.0, 71.2, 69.3, 21.4),
        "k": (53.5, 53.1, 37.5, 45.3, 44.2, 57.0, 45.3, 75.0, 70.5, 24.2, 10.4),
        "lora": (92.6, 50.5, 41.0, 63.1, 63.5, 50.0, 55.3, 76.0, 71.0, 79.7, 27.9),
        "shots": (80.3, 53.0, 48.2, 58.5, 47.1, 50.6, 46.3, 69.0, 70.9, 58.6, 20.3),
        "zero-shot": (53.5, 53.0, 39.3, 45.5, 44.2, 57.3, 45.3, 75.0, 70.5, 27.2, 11.1),
    },
    OPT_LARGE: {
        "v": (95.2, 82.6, 96.4, 78.8, 63.5, 65.2, 73.9, 83.0, 77.7, 86.9, 32.4),
        "q": (80.3, 62.4, 67.8, 64.7, 60.5, 59.4, 58.6, 83.0, 76.5, 75.5, 27.9),
        "k": (61.2, 54.8, 50.0, 59.5, 37.5, 51.2, 44.5, 82.0, 76.0, 37.4, 16.8),
        "lora": (50.5, 47.2, 50.0, 63.1, 63.5, 50.4, 55.5, 82.0, 76.3, 85.7, 31.1),
        "shots": (84.6, 65.7, 57.1, 68.9, 50.9, 53.6, 50.4, 82.0, 76.8, 74.2, 27.5),
        "zero-shot": (61.2, 55.2, 51.7, 59.5, 37.5, 51.2, 44.5, 82.0, 76.1, 36.5, 17.7),
    },
}
