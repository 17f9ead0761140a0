"""The recipes of docs/recipes.md, as a user writes them; test_recipes.py runs each where its library is installed."""

from __future__ import annotations


def mlflow_run() -> None:
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


def wandb_run() -> None:
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


def optuna_search() -> None:
    # region: optuna
    import optuna

    import edgeprof

    def cost(trial: optuna.Trial) -> tuple[float, float]:
        amount = trial.suggest_float("amount", 0.1, 0.5, step=0.1)
        result = edgeprof.bench(
            "digits.onnx",
            variants=[f"prune-structured:amount={amount:.1f}+int8-static"],
            dataset="digits-test.npz",
            preset="quick",
        )
        _, variant = result.variants
        energy, accuracy = variant.energy_j_per_inference, variant.accuracy
        if energy is None or energy.gross.value is None or accuracy is None:
            raise optuna.TrialPruned([reason.message for reason in variant.reasons])
        trial.set_user_attr("result", result.id)
        trial.set_user_attr("provenance", energy.provenance)
        return accuracy.value, energy.gross.value

    study = optuna.create_study(directions=["maximize", "minimize"])
    study.optimize(cost, n_trials=10)
    for best in study.best_trials:
        print(best.params, best.values, best.user_attrs)
    # endregion


def olive_pass() -> None:
    # region: olive
    import olive

    import edgeprof

    made = olive.run(
        {
            "input_model": {"type": "ONNXModel", "model_path": "digits.onnx"},
            "passes": {"int8": {"type": "OnnxDynamicQuantization"}},
            "output_dir": "olive",
        }
    )
    models = {"digits": "digits.onnx", "olive": made.get_best_candidate().model_path}
    result = edgeprof.bench(models, dataset="digits-test.npz", preset="quick")
    print(result)
    # endregion
