"""What MkDocs does not do by itself: formulas without scripts, names as Python has.

A hook of MkDocs and an extension of Griffe, which reads the code for the reference.
"""

import html
import importlib
import inspect
import re

import equinox as eqx
import griffe
import latex2mathml.converter


FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL
)


def on_page_content(content: str, **_) -> str:
    """The page, with its formulas as MathML, which browsers draw by themselves."""

    def draw(formula: re.Match) -> str:
        display = "block" if formula[2] == "[" else "inline"
        return latex2mathml.converter.convert(
            html.unescape(formula[3]), display=display
        )

    return FORMULA.sub(draw, content)


class Names(griffe.Extension):
    """Gives names to what they mean once the code has run.

    `dicjax.reach` is a function that has the name of its module, and the fields of an
    `equinox.Module` are the parameters of its constructor.
    """

    def on_package(self, *, pkg: griffe.Module, **_) -> None:
        """Mends the package after all of it was read."""
        modules = [pkg]
        for module in modules:
            for member in list(module.members.values()):
                if isinstance(member, griffe.Module):
                    modules.append(member)
                elif isinstance(member, griffe.Class):
                    _construct(member)
        for module in reversed(modules):
            for name, target in module.imports.items():
                member = module.members.get(name)
                if isinstance(member, griffe.Module) and target != member.path:
                    _replace(module, member)


def _construct(cls: griffe.Class) -> None:
    """Makes the constructor that Equinox makes when the class is defined."""
    made = getattr(importlib.import_module(cls.module.path), cls.name)
    if "__init__" in cls.members or not issubclass(made, eqx.Module):
        return
    parameters = [griffe.Parameter("self")]
    for x in inspect.signature(made).parameters.values():
        field = cls.members.get(x.name)
        parameters.append(
            griffe.Parameter(
                x.name,
                annotation=getattr(field, "annotation", None),
                kind=griffe.ParameterKind(x.kind.description),
                default=None if x.default is x.empty else repr(x.default),
            )
        )
    init = griffe.Function("__init__", parameters=griffe.Parameters(*parameters))
    cls.set_member("__init__", init)


def _replace(module: griffe.Module, member: griffe.Module) -> None:
    """Puts the function in the place of the module of the same name that holds it."""
    function = member.members[member.name]
    # What else the module holds is still found under its path.
    function.members.update(member.members)
    module.members[member.name] = griffe.Alias(member.name, function, parent=module)
