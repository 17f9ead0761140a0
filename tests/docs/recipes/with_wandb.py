"""The recipe for wandb in docs/recipes.md; test_recipes.py runs it where the library is installed."""

# region: wandb
import wandb

import edgeprof

result = edgeprof.load("result.json")
for row in result.to_rows():
    known = {name: value for name, value in row.items() if value not in {None, ""}}
    with wandb.init(project="energy", group=result.id, name=row["variant"]) as run:
        run.config.update({name: value for name, value in known.items() if isinstance(value, str)})
        run.log({name: value for name, value in known.items() if not isinstance(value, str)})
# endregion
