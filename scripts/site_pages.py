"""The pages of the site that do not lie in docs/: README and its like, and the API reference (a hook of mkdocs.yml)."""

import ast
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = {"index.md": "README.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
# without importing them: a site needs no torch
EXPORTED = ast.literal_eval((ROOT / "callbacks/__init__.py").read_text(encoding="utf-8").partition("__all__ = ")[2])
# the title of each page, and what it describes: classes, and whole modules
REFERENCE = {
    "module": ("IsaraModule", ["module.IsaraModule", "models.adapter.LoraOptions", "strategies.AdapterFSDP"]),
    "datamodule": (
        "IsaraDataModule",
        ["datamodule.datamodule.IsaraDataModule", "generation.protocol", "errors.InputError"],
    ),
    "callbacks": (
        "Callbacks",
        [*(f"callbacks.{name}" for name in EXPORTED), "callbacks.evaluation.Evaluation", "datamodule.growing"],
    ),
    "metrics": (
        "Metrics and judges",
        [f"evaluation.{name}" for name in ("metrics", "text_overlap", "diversity", "refusals", "judges")],
    ),
    "growth": (
        "Growth",
        [f"growth.{name}" for name in ("outer_epoch", "filtering", "pool", "samples", "retrieval", "prompts")],
    ),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name, source in OUTSIDE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    for name, (title, described) in REFERENCE.items():
        blocks = "".join(f"::: isara_pl.{one}\n\n" for one in described)
        files.append(File.generated(config, f"api/{name}.md", content=f"# {title}\n\n{blocks}"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead where the pages lie in the site; in the repository they lead to files."""
    if page.file.src_uri in OUTSIDE:
        markdown = markdown.replace("](docs/", "](")
    for name, source in OUTSIDE.items():
        markdown = re.sub(rf"\]\((\.\./)?{re.escape(source)}(?=[#)])", f"]({name}", markdown)
    return markdown
