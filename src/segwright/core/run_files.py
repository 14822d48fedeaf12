"""What the files in the folder of a run are called."""

PLAN_FILE = "plan.toml"
MODEL_FILE = "model.safetensors"  # the best weights so far, and all that prediction needs
STATE_FILE = "state.safetensors"  # where training stands, from which it goes on
LOG_FILE = "log.jsonl"
SCORES_FILE = "scores.json"
REPORT_FILE = "report.html"
FIRST_FOLDER = "first"  # a copy of the first run of a cascade, from which prediction takes its networks
FOLDS_FILE = "folds.json"  # in the folder above the runs of folds: what a cross-validation was begun with
