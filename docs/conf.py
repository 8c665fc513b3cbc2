"""How Sphinx builds the site: python -m sphinx -W -n -b html docs docs/_build.

Nothing is fetched, neither by the build nor by the pages: formulas become MathML, which browsers
draw by themselves.
"""

import re
from importlib import metadata
from pathlib import Path
from typing import Generic, NewType, TypeVar

import numpy.typing
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = "tinygrad_mnist"
version = release = metadata.version(project)
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
root_doc = "pages/index"

html_theme = "furo"
html_title = project
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

smartquotes_action = "D"  # dashes, no quotes: "sum" is a string
default_role = "code"  # for single backquotes in docstrings
autodoc_mock_imports = ["torch"]  # large, and of the docs nobody needs more than its name
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
add_module_names = False
napoleon_numpy_docstring = False


class NDArray(Generic[TypeVar("DType")]):
    """A stand-in for NumPy's alias, which Sphinx would write out."""


# Sphinx shows these names; it would write each alias out, over three lines
numpy.typing.NDArray = NDArray
for alias in ("ArrayLike", "DTypeLike"):
    setattr(numpy.typing, alias, NewType(alias, object))

from tinygrad_mnist import Linear  # noqa: E402

# Sphinx would show the type of this attribute for the argument of the same name
del Linear.__annotations__["bias"]

# types of other projects, whose documentation is elsewhere, the three names above, and what
# `tinygrad_mnist.settings` makes
nitpick_ignore_regex = [
    ("py:.*", r"(numpy|hypothesis|matplotlib|onnx|collections|typing|os)\..*"),
    ("py:class", r".*\b(ArrayLike|DTypeLike|NDArray|Settings?|_display.Table)"),
]


def _mathml(node, **options):
    # Markdown in a repository takes a sign behind a backslash, so pages have \cr for TeX's \\
    return tex2mathml(re.sub(r"\\cr\b", r"\\\\", node.astext()), **options)


def _inline_math(self, node):
    self.body.append(_mathml(node))
    raise nodes.SkipNode


def _display_math(self, node):
    self.body.append(f'<div class="math">{_mathml(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def _without_last_line(app, doctree):
    """Remove the empty line at the end of a doctest from each block."""
    for block in doctree.findall(nodes.literal_block):
        block.rawsource = block.astext().rstrip()
        block[:] = [nodes.Text(block.rawsource)]


def _lead_to_the_first_page(app, error):
    if error is None and app.builder.format == "html":
        target = app.builder.get_target_uri(root_doc)
        page = f'<!doctype html><meta http-equiv="refresh" content="0; url={target}">\n'
        (Path(app.outdir) / "index.html").write_text(page)


def setup(app):
    """Register the formulas and the first page."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_display_math, None))
    app.connect("doctree-read", _without_last_line)
    app.connect("build-finished", _lead_to_the_first_page)
