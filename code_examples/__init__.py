"""The chapters under readable names: `from code_examples import autoencoder`.

A module whose name starts with a digit cannot be imported by an import statement, so each
numbered script is loaded here on first use. `code_examples.utils` is the plumbing they share.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType

_SCRIPTS = {
    "autoencoder": "01_autoencoder",
    "gans": "02_gans",
    "vae": "03_variational_autoencoder",
    "diffusion": "04_diffusion_models",
    "flows": "05_normalizing_flows",
    "energy": "06_energy_based_models",
    "pixelcnn": "07_pixelcnn",
    "advanced": "08_advanced_architectures",
}
_CHAPTERS = {k: v for k, v in _SCRIPTS.items() if (Path(__file__).parent / f"{v}.py").exists()}


def __getattr__(name: str) -> ModuleType:
    if name in _CHAPTERS:
        return import_module(f".{_CHAPTERS[name]}", __name__)
    raise AttributeError(f"no chapter {name!r}: expected one of {', '.join(_CHAPTERS)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_CHAPTERS])
