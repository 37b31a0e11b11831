"""How a check of the runtime says what came of it; the runtime has no pytest."""

import traceback


def raises(kind, words, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except kind as error:
        said = str(error)
    else:
        said = f"no {kind.__name__}"
    assert words in said, f"{words!r} not in {said!r}"


def outcome(function, *args):
    try:
        function(*args)
    except BaseException:  # noqa: BLE001 (any fault of a check is its outcome)
        return traceback.format_exc()
    return "passed"
