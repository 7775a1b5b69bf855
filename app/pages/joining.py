"""Join the modules of a folder into one file: a browser fetches one instead of twenty, and it compresses better.

Each module stays in a scope of its own, and lines keep their order. This understands only JavaScript that stands at the
beginning of a line: `import { a, b as c } from "./x.js";`, `import a from "./x.js";`, `export` before `const`,
`function` or `class`, `export { a };` and `export { a } from "./x.js";`. Exports are values that do not change, since
importers get them once. Pure.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

_IMPORT = re.compile(r'^import\s+(\{[^}]*\}|\w+)\s+from\s+"([^"]+)";$', re.MULTILINE)
_HANDED_ON = re.compile(r'^export\s+(\{[^}]*\})\s+from\s+"([^"]+)";$', re.MULTILINE)
_LISTED = re.compile(r"^export\s+\{([^}]*)\};$", re.MULTILINE)
_EXPORTED = re.compile(r"^export\s+(?=(?:const|class|(?:async\s+)?function\*?)\s+(\w+))", re.MULTILINE)
_LEFT = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)
# Comments on lines of their own, then at the end of a line. No text in our files looks like one.
_COMMENT = re.compile(r"^[ \t]*(?:/\*(?:(?!\*/).)*\*/[ \t]*|//[^\n]*)$\n?", re.MULTILINE | re.DOTALL)
_REMARK = re.compile(r"(?<=[;,{])[ ]+//[ ][^\n]*$", re.MULTILINE)
_AROUND = re.compile(r"\s*([{};,>])\s*|(?<=:)[ ]")  # of a style; a selector has no space after a colon
# The indentation of a line, and the end of the line before markup, where htm ignores it.
_INDENT = re.compile(r"^[ \t]+|\n(?=\s*(?:\n|</?[\w$>]))", re.MULTILINE)


def lean(text: str) -> str:
    """Return a script or style without comments, indentation and empty lines: a fifth less to send."""
    return _INDENT.sub("", _REMARK.sub("", _COMMENT.sub("", text)))


def lean_style(text: str) -> str:
    """Return a style without the spaces around its signs, too."""
    return _AROUND.sub(r"\1", lean(text))


def join(folder: str, modules: Mapping[str, str], *, exports: bool = False) -> str:
    """Return the modules of `folder` (path → text) as one, in the order in which they need each other.

    Imports from another folder become imports of that folder's joined file; those of vendored files stay. `exports`:
    the file exports everything that its modules export. Raises ValueError for an unknown form, and for modules that
    import each other.
    """
    outside: dict[str, str] = {}  # path → the name under which the file has it
    plain: dict[str, str] = {}  # name → path of imports without another name: once for the file
    bodies: list[str] = []
    exported: dict[str, list[str]] = {}

    def name_of(path: str) -> str:
        return "$" + re.sub(r"\W", "_", path.removeprefix(f"{folder}/").removesuffix(".js"))

    def take(path: str, above: tuple[str, ...]) -> None:
        if path in above:
            raise ValueError(f"modules import each other: {' → '.join((*above, path))}")
        if path in exported:
            return
        text, own = modules[path], list[str]()

        def bring(what: str, origin: str) -> str:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), origin))
            if target in modules:
                take(target, (*above, path))
                return f"const {what.replace(' as ', ': ')} = {name_of(target)};"
            home = target if target.startswith("vendor/") else f"{target.partition('/')[0]}.js"
            names = _names(what) if what.startswith("{") else [f"default as {what}"]
            # The exports of a shared file stand at its top, where an import of the same name would collide.
            renamed = [each for each in names if exports or " as " in each or plain.setdefault(each, home) != home]
            if not renamed:
                return ""
            outside[home] = name_of(home)
            return f"const {{ {', '.join(renamed).replace(' as ', ': ')} }} = {outside[home]};"

        def hand_on(match: re.Match[str]) -> str:
            own.extend(_names(match[1]))
            return bring(match[1], match[2])

        def note(match: re.Match[str]) -> str:
            own.extend(_names(match[1]))
            return ""

        text = _IMPORT.sub(lambda match: bring(match[1], match[2]), text)
        text = _HANDED_ON.sub(hand_on, text)
        text = _EXPORTED.sub(note, _LISTED.sub(note, text))
        if left := _LEFT.search(text):
            raise ValueError(f"{path}: {left[0]!r} cannot be joined")
        exported[path] = own
        bodies.append(f"const {name_of(path)} = (() => {{\n{text}\nreturn {{ {', '.join(own)} }};\n}})();\n")

    for path in sorted(modules):
        take(path, ())
    homes = {home: [name for name, of in plain.items() if of == home] for home in sorted({*plain.values()})}
    imports = [f'import {{ {", ".join(names)} }} from "./{home}";\n' for home, names in homes.items()]
    imports += [f'import * as {name} from "./{home}";\n' for home, name in sorted(outside.items())]
    told = [f"export const {{ {', '.join(own)} }} = {name_of(path)};\n" for path, own in exported.items() if own]
    return "".join([*imports, *bodies, *(told if exports else ())])


def _names(what: str) -> Iterable[str]:
    return [name for each in what.strip("{}").split(",") if (name := " ".join(each.split()))]
