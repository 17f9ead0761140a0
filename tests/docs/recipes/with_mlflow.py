"""The recipe for mlflow in docs/recipes.md; test_recipes.py runs it where the library is installed."""

# region: mlflow
import mlflow

import edgeprof

result = edgeprof.load("result.json")  # or "last", or the id of a stored run
result.save("edgeprof-result.json")
mlflow.set_experiment("energy")
for row in result.to_rows():
    known = {name: value for name, value in row.items() if value not in {None, ""}}
    numbers = {name: value for name, value in known.items() if isinstance(value, int | float)}
    with mlflow.start_run(run_name=row["variant"]):
        mlflow.log_metrics(numbers)
        mlflow.set_tags({name: value for name, value in known.items() if name not in numbers})
        mlflow.log_artifact("edgeprof-result.json")
# endregion
