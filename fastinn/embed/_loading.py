"""What goes wrong when a model is loaded, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from fastinn.embed._quiet import quiet_transformers


@contextmanager
def loading(source: str) -> Iterator[None]:
    """Turn whatever keeps ``source`` from being loaded into a ``ValueError`` that names it.

    What transformers reports meanwhile, such as heads that are not used, is not shown.
    """
    if source.startswith((".", "/", "~")) and not Path(source).is_dir():
        raise ValueError(f"there is no model folder {source}; give a hub id or a folder")
    try:
        with quiet_transformers():
            yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"model {source} cannot be loaded ({reason}); give a hub id or the folder of a "
            "Hugging Face encoder"
        ) from error
