"""What rows say of safety: BeaverTails of answers, XSTest and StrongREJECT of prompts."""

from isara_pl.errors import InputError, short
from isara_pl.growth.tables import Row

_CONTRAST = "contrast_"  # what XSTest's types of unsafe prompts begin with
_FLAGS = {"true": True, "false": False, "1": True, "0": False}


def is_safe_of(row: Row) -> bool | None:
    """Give BeaverTails' verdict on an answer; None where there is none."""
    value = row.get("is_safe")
    if value is None or value == "":
        return None
    known = _FLAGS.get(str(value).strip().lower())
    if known is None:
        raise InputError(f"the field `is_safe` is {short([str(value)])}; allowed: true or false")
    return known


def safe_prompt_of(row: Row, otherwise: bool | None) -> bool:
    """Tell whether a prompt is safe to answer, by XSTest's `label` or `type`; StrongREJECT's are all forbidden.

    `otherwise` is what a prompt is of which nothing says that; None takes every other `type` for a safe one, as XSTest
    without labels has it, and raises InputError where there is no type.
    """
    label, kind = (str(row.get(name) or "").strip().lower() for name in ("label", "type"))
    if label in ("safe", "unsafe"):
        return label == "safe"
    if kind.startswith(_CONTRAST) or row.get("forbidden_prompt"):
        return False
    if otherwise is not None:
        return otherwise
    if label or not kind:
        raise InputError(
            f"nothing says whether the prompt is safe to answer: `label` is {short([label])}; expected `label` safe or "
            f"unsafe, or XSTest's `type`, of which those of unsafe prompts begin with {_CONTRAST}"
        )
    return True
