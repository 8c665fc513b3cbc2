"""How Sphinx builds the site: python -m sphinx -W -n -b html docs docs/_build.

Nothing is fetched, neither by the build nor by the pages: formulas become MathML, which browsers
draw by themselves, and the figures are drawn here.
"""

import sys
from importlib import metadata
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from figures import draw  # noqa: E402

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

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "code"  # what the docstrings have in single backquotes
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
add_module_names = False
napoleon_numpy_docstring = False

# types of other projects, whose documentation is elsewhere; and names for our own
nitpick_ignore_regex = [
    ("py:.*", r"(np|numpy|st|hypothesis|matplotlib|collections|typing|os)\..*"),
]


def _inline_math(self, node):
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _display_math(self, node):
    self.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>\n')
    raise nodes.SkipNode


def _draw_figures(app):
    for page in sorted((DOCS / "pages").glob("*.md")):
        draw(page)


def _lead_to_the_first_page(app, error):
    if error is None and app.builder.format == "html":
        target = app.builder.get_target_uri(root_doc)
        page = f'<!doctype html><meta http-equiv="refresh" content="0; url={target}">\n'
        (Path(app.outdir) / "index.html").write_text(page)


def setup(app):
    """Register the formulas, the figures and the way in."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_display_math, None))
    app.connect("builder-inited", _draw_figures)
    app.connect("build-finished", _lead_to_the_first_page)
