"""Command lines from signatures: a function's parameters are its options, and its docstring is their help.

jsonargparse's own reading of a signature knows no flags, and no lists of words.
"""

from collections.abc import Callable
from inspect import Parameter, signature
from keyword import iskeyword
from typing import Annotated, Any, get_args, get_origin

import docstring_parser

from isara_pl.cli.errors import PlainErrors


def parser_for(command: Callable[..., None], called: str) -> PlainErrors:
    """Give the parser of a function. What has no default is positional, unless only its name can give it.

    A type may be `Annotated` with what stands for the value in the help.
    """
    text = docstring_parser.parse(command.__doc__ or "")
    helps = {described.arg_name: described.description for described in text.params}
    parser = PlainErrors(prog=called, allow_abbrev=False, description=text.description)
    for parameter in signature(command).parameters.values():
        kind: Any = parameter.annotation
        how: dict[str, Any] = {"help": helps[parameter.name]}
        if get_origin(kind) is Annotated:
            kind, how["metavar"] = get_args(kind)
        if kind is bool:
            how |= {"action": "store_true"}
        elif get_origin(kind) is list:
            how |= {"type": str, "nargs": "+"}
        else:
            how |= {"type": kind}
        option = f"--{parameter.name.rstrip('_').replace('__', '.')}"
        if parameter.default is not Parameter.empty:
            parser.add_argument(option, default=parameter.default, **how)
        elif parameter.kind is Parameter.KEYWORD_ONLY:
            parser.add_argument(option, required=True, **how)
        else:
            parser.add_argument(parameter.name, **how)
    return parser


def parameter_of(option: str) -> str:
    """Give the parameter of an option: a name has no dots, and is no word of Python's own, such as `with`."""
    name = option.replace(".", "__")
    return f"{name}_" if iskeyword(name) else name
