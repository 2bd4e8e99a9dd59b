"""Settings of the documentation site: Sphinx, MyST pages, the PyData theme."""

import recyclelora

project = "RecycleLoRA"
author = "The RecycleLoRA on Detectron2 contributors"
copyright = "2026, The RecycleLoRA on Detectron2 contributors"
version = release = recyclelora.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["figures"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3  # links to #section check that the section exists

napoleon_google_docstring = False
napoleon_use_ivar = True  # an attribute that is a property too is described once
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature and the Parameters section give the types
copybutton_exclude = ".linenos, .gp"

html_theme = "pydata_sphinx_theme"
html_title = "RecycleLoRA"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": []}
