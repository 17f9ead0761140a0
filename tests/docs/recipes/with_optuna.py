"""The recipe for optuna in docs/recipes.md; test_recipes.py runs it where the library is installed."""

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
