"""A state machine of writers, workers, crashes and redeliveries, held against a plain dict.

A script is a list of plain values made from its number. `operations` is what writers do, in the model and in the
database; `world` is the store, the model, and everybody who works on them; `invariants` is what must hold after each
step and at rest; `scripts` makes, plays and shortens. Who only wants to play calls `scripts.play_rounds`.
"""

import pytest

# Before the modules are imported: a failed assert outside of a test file would say nothing but its line.
pytest.register_assert_rewrite(f"{__name__}.world", f"{__name__}.invariants", f"{__name__}.scripts")
