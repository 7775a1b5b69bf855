"""Modules that become one file."""

from __future__ import annotations

import pytest

from app.pages.joining import join, lean, lean_style


def test_a_module_comes_after_what_it_imports_and_keeps_a_scope_of_its_own() -> None:
    modules = {
        "page/a.js": 'import { twice as double } from "./z.js";\nexport const four = double(2);\n',
        "page/z.js": "const by = 2;\nexport function twice(value) {\nreturn by * value;\n}\n",
    }
    assert join("page", modules) == (
        "const $z = (() => {\nconst by = 2;\n"
        "function twice(value) {\nreturn by * value;\n}\n\nreturn { twice };\n})();\n"
        "const $a = (() => {\nconst { twice: double } = $z;\nconst four = double(2);\n\nreturn { four };\n})();\n"
    )


def test_other_folders_are_imported_as_the_files_that_they_become() -> None:
    modules = {
        "page/a.js": 'import {\nhtml,\nuseId as id,\n} from "../base/html.js";\nimport htm from "../vendor/htm.js";\n',
        "page/b.js": 'import { note } from "../base/live.js";\nnote("b");\n',
    }
    text = join("page", modules)
    assert text.startswith(
        'import { html, note } from "./base.js";\n'
        'import * as $base from "./base.js";\nimport * as $vendor_htm from "./vendor/htm.js";\n'
    )
    assert "const { useId: id } = $base;\nconst { default: htm } = $vendor_htm;\n" in text


def test_what_a_shared_folder_exports_its_file_exports() -> None:
    modules = {
        "base/html.js": 'export { useState } from "../vendor/hooks.js";\nconst html = 1;\nexport { html };\n',
        "base/b.js": "export class B {}\nexport async function* c() {}\n",
    }
    text = join("base", modules, exports=True)
    assert "export const { B, c } = $b;\n" in text
    assert "export const { useState, html } = $html;\n" in text
    assert text.startswith('import * as $vendor_hooks from "./vendor/hooks.js";\n')


@pytest.mark.parametrize(
    "line", ["export default 1;", "export let a = 1;", 'import * as a from "./a.js";', 'import "./a.js";']
)
def test_what_is_not_understood_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="cannot be joined"):
        join("page", {"page/b.js": line})


def test_modules_that_import_each_other_are_refused() -> None:
    modules = {"page/a.js": 'import { b } from "./b.js";\n', "page/b.js": 'import { a } from "./a.js";\n'}
    with pytest.raises(ValueError, match=r"page/a\.js → page/b\.js → page/a\.js"):
        join("page", modules)


def test_what_is_sent_lacks_comments_indentation_and_empty_lines_alone() -> None:
    source = '/** What\n *  it does. */\nconst a = `/* no */`; // gone\n\n  // gone\n  b("http://x");\n/* one */\n'
    assert lean(source) == 'const a = `/* no */`;\nb("http://x");\n'


def test_markup_follows_what_stands_before_it_and_a_comparison_stays_on_its_line() -> None:
    assert lean("html`\n  <p>\n    one\n  </p>`;\nif (a\n  < b) c();\n") == "html`<p>\none</p>`;\nif (a\n< b) c();\n"


def test_a_style_lacks_the_spaces_around_its_signs_alone() -> None:
    source = "/* one */\n.a > .b:hover, .c :focus { margin: 0 calc(1px + 2px); color: light-dark(#fff, #000) }\n"
    assert lean_style(source) == ".a>.b:hover,.c :focus{margin:0 calc(1px + 2px);color:light-dark(#fff,#000)}"
