"""Settings of the documentation site: Sphinx, MyST pages, the PyData theme."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import recyclelora

project = "RecycleLoRA"
author = "The RecycleLoRA on Detectron2 contributors"
copyright = "2026, The RecycleLoRA on Detectron2 contributors"
version = release = recyclelora.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
default_role = "literal"  # a name in single backticks in a docstring is code, not italic
exclude_patterns = ["figures", "_templates"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 3  # links to #section check that the section exists

napoleon_google_docstring = False
# "a, b : int" remains one entry. An attribute that is also a property is described once.
napoleon_use_param = False
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature and the Parameters section give the types
autodoc_preserve_defaults = True  # a default is shown by its name, not by its value
toc_object_entries_show_parents = "hide"
copybutton_exclude = ".linenos, .gp"

html_math_renderer = "mathml"  # defined below: MathJax would be loaded from another server

html_theme = "pydata_sphinx_theme"
html_title = "RecycleLoRA"
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path = ["_templates"]
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "navbar_center": [],  # the sidebar lists all pages
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"**": ["pages"]}


def _inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def _skip_named_tuple_field(
    app: Sphinx, what: str, name: str, member: object, skip: bool, options: object
) -> bool | None:
    """Skip the fields of named tuples, which the Attributes section describes."""
    return True if type(member).__name__ == "_tuplegetter" else None


def setup(app: Sphinx) -> None:
    """Write formulas as MathML, which all current browsers show without a script."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(_inline, None), block_renderers=(_block, None)
    )
    app.connect("autodoc-skip-member", _skip_named_tuple_field)
