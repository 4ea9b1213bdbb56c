"""How Sphinx makes the site of the documentation: `make docs`."""

import sys
from pathlib import Path

import capscope

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "capscope"
author = "the capscope developers"
version = release = capscope.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "generated",
    "docstrings",
    "mathml",
]
exclude_patterns = ["extensions"]
suppress_warnings = ["ref.python"]  # classes of one name in two rooms: no link, as in the text

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

default_role = "py:obj"
smartquotes = False  # two hyphens are an option
add_module_names = False
autodoc_class_signature = "mixed"
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "ignore-module-all": True,
    "exclude-members": "__init__, __new__",
}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_mock_imports = ["detectron2"]
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = "capscope"
html_math_renderer = "mathml"
html_show_copyright = False
html_copy_source = False
