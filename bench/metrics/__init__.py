"""One definition of each number, as pure functions over records; terminal, MLflow, page and claims call the same."""

__all__ = ["BUDGET_PP", "DEFAULT_FPR", "DEMONSTRATIONS"]

DEMONSTRATIONS = ("smoke", "quick")  # profiles whose numbers are never ranked on the page
DEFAULT_FPR = 0.01  # the false positive rate that verdicts are held to where nobody asks for another
BUDGET_PP = 5.0  # the test accuracy, in percentage points, that an attacker may give up in the worst case
