"""Notes and code say the same: equations, sections, links, figures, and the worked examples.

The scripts beside the notes' pictures still run and draw them, too.
"""

import ast
import fnmatch
import importlib
import itertools
import math
import os
import re
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.stats import chi2, logistic, ncx2, norm
from torch.distributions import Bernoulli, Categorical, MultivariateNormal, Normal, kl_divergence

import code_examples
from code_examples import diffusion, utils, vae
from code_examples.utils import run as run_module

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "notes" / "figures"
NOTES = sorted((ROOT / "notes").glob("[0-9][0-9]_*.md"))
FUNDAMENTALS = NOTES[0]
GANS = ROOT / "notes" / "02_gans_detailed_guide.md"
VAES = ROOT / "notes" / "03_vaes_and_latent_variable_models.md"
DIFFUSION = ROOT / "notes" / "04_diffusion_probabilistic_models.md"
SMALL = {
    "autoencoder_compression": {"sizes": (2,), "seeds": 1},
    "autoencoder_gallery": {"seeds": 2},
    "autoregressive_completions": {"count": 10, "draws": 2},
    "autoregressive_exposure": {"count": 10, "given": (14,)},
    "autoregressive_gallery": {"seeds": 1, "parts": ("conditional", "pixelcnn"), "num_samples": 30},
    "autoregressive_ladder": {"models": ("FVSBN", "MADE 8 orders"), "components": 5},
    "autoregressive_levels": {"levels": (4,), "count": 20},
    "autoregressive_overfitting": {"count": 20},
    "autoregressive_receptive_fields": {"layers": (1, 2)},
    "autoregressive_speed": {"models": ("made", "pixelcnn"), "batch_sizes": (1, 2)},
    "autoregressive_temperature": {"temperatures": (0.0, 1.0)},
    "diffusion_editing": {"completions": 1, "repeats": 2, "sampling_steps": 10},
    "diffusion_error": {"bins": 4, "draws": 1},
    "diffusion_gallery": {"seeds": 1, "runs": ("conditional",), "reuse": True},
    "diffusion_guidance": {"weights": (2.0,), "shown": (0.0,), "sampling_steps": 10},
    "diffusion_levers": {"rows": ("full resolution",), "dataset": "mnist5k"},
    "diffusion_steps": {"steps": (5,), "shown": (5,)},
    "energy_annealing": {"hidden": 6, "levels": (5, 20), "temperatures": 20, "repeats": 2}
    | {"coverage": 4, "coverage_levels": (5,)},
    "energy_divergence": {"methods": ("CD-1", "PCD"), "hidden": 16, "look_temperatures": 5},
    "energy_gallery": {"seeds": 1, "parts": ("rbm",)},
    "energy_langevin": {"particles": 100, "machines": 3, "trainings": ("pcd",), "count": 20},
    "energy_out_of_distribution": {"count": 20},
    "energy_plane": {"densities": ("moons",), "methods": ("nce",), "sigmas": (0.05,), "width": 8}
    | {"distances": (1.0,), "blind_steps": 3, "seeds": 1, "num_samples": 64},
    "energy_sklearn": {"hidden": 16, "num_samples": 64, "rates": (0.1,)},
    "energy_stability": {"rows": ("default", "unstable"), "width": 4, "num_samples": 64},
    "flow_gallery": {"seeds": 1, "runs": ()},
    "flow_out_of_distribution": {"count": 20, "model": "realnvp"},
    "flow_speed": {"dims": (2, 16), "rows": 20, "width": 16, "repeats": 1},
    "flow_topology": {"steps": 5, "samples": 5000, "draws": 2, "width": 8},
    "gan_gallery": {"seeds": 1},
    "gan_modes": {"seeds": 1, "rows": 2},
    "gan_practice": {"rows": 2},
    "gan_sick": {"rows": 2},
    "gan_one_dimension": {"steps": 20},
    "vae_gallery": {"seeds": 1, "nll_images": 20},
    "vae_gradient_variance": {"draws": 50},
    "vae_rate_distortion": {"betas": (1.0,)},
}
SHARED = ("seeds", "autoregressive_model")  # modules of figure scripts, not scripts
every_note = pytest.mark.parametrize("note", NOTES, ids=lambda p: p.stem)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Where figure scripts leave and find the models that they share, so that each trains once."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize(
    "name", sorted(p.stem for p in FIGURES.glob("*.py") if p.stem not in SHARED)
)
def test_every_figure_script_draws_what_it_names(name, tmp_path, trained, monkeypatch):
    monkeypatch.setattr(run_module, "LOOKS", 2)  # frames of each training.gif
    module = importlib.import_module(f"notes.figures.{name}")
    out = trained if hasattr(module, "load") else tmp_path / "runs"
    flags = {"epochs": 1, "quick": True, "out": out, "figures": tmp_path / "figures"}
    module.main(module.Config(**flags, **SMALL.get(name, {})))
    drawn = {p.name for p in (tmp_path / "figures").iterdir()}
    kept = {p.name for p in FIGURES.iterdir() if p.suffix in (".png", ".gif")}
    assert drawn
    assert drawn <= kept, "run the script and keep its pictures beside it"


# --- Reading Markdown and Python

TAG = re.compile(r"\\tag\{(\d+\.\d+)\}")
EQUATION = r"\(\d+\.\d+\)"
CITED_EQUATIONS = re.compile(
    rf"notes/(\d\d)[\s#]+eqs?\.[\s#]+({EQUATION}(?:(?:,|,? and|,? to)[\s#]+{EQUATION})*)"
)
CITED_SECTIONS = re.compile(r"notes/(\d\d)[\s#]+section[\s#]+(\d+(?:\.\d+)?)")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
DISPLAY = re.compile(r"^\$\$\n(.*?)^\$\$$", flags=re.MULTILINE | re.DOTALL)
ENVIRONMENT = ("pyvenv.cfg", "conda-meta")  # in a folder: it belongs to an installation
FENCED = re.compile(r"^```.*?^```", flags=re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$([^$\n]+)\$")


@cache
def files(suffix):
    """All files of this repository with that suffix; no environment, output or hidden folder."""
    found = []
    for folder, inside, names in os.walk(ROOT):
        inside[:] = [
            name
            for name in inside
            if not name.startswith((".", "_")) and name not in ("outputs", "data")
            if not any(Path(folder, name, sign).exists() for sign in ENVIRONMENT)
        ]
        found += [Path(folder) / name for name in names if name.endswith(suffix)]
    return sorted(found)


@cache
def read(path):
    return path.read_text(encoding="utf-8")


def without_code(text):
    """Markdown without fenced blocks and code spans; the lines stay where they were."""
    text = re.sub(
        r"^```.*?^```", lambda m: "\n" * m[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL
    )
    return re.sub(r"`[^`\n]+`", "", text)


def citations(pattern):
    """Where code or prose cites a note: (file, number of the note, what) for each."""
    return [
        (path.relative_to(ROOT), number, what)
        for path in (*files(".py"), *files(".md"))
        for number, what in pattern.findall(read(path))
    ]


def by_number(number):
    """The text of notes/NN_*.md, or None."""
    return next((read(note) for note in NOTES if note.name.startswith(f"{number}_")), None)


def sections(text):
    """Numbers of the sections of a note: {"1", "2", ..., "6.1", ...}."""
    return set(re.findall(r"^#{2,4} (\d+(?:\.\d+)?)\.? ", without_code(text), flags=re.MULTILINE))


def anchors(text):
    """The anchors that GitHub gives to the headings of a Markdown file."""
    found = []
    for title in re.findall(
        r"^#+ (.*)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    ):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title.strip().lower())
        anchor = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
        again = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", f) is not None for f in found)
        found.append(f"{anchor}-{again}" if again else anchor)
    return set(found)


def definitions(path):
    """Every function and class of a Python file: name, docstring, the classes around it."""

    def walk(node, around):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                yield child.name, ast.get_docstring(child) or "", around
                yield from walk(child, (*around, child.name))

    return list(walk(ast.parse(read(path)), ()))


# --- Equations and sections


@every_note
def test_equations_are_numbered_in_order_without_gaps(note):
    tags = TAG.findall(without_code(read(note)))
    assert tags == [f"{int(note.name[:2])}.{k}" for k in range(1, len(tags) + 1)]
    assert tags


def test_every_equation_that_is_cited_exists():
    cited = citations(CITED_EQUATIONS)
    assert cited, "nothing cites a note"
    for path, number, equations in cited:
        text = by_number(number)
        assert text, f"{path} cites notes/{number}, which does not exist"
        for equation in re.findall(r"\d+\.\d+", equations):
            assert equation in TAG.findall(text), f"{path} cites notes/{number} eq. ({equation})"


@every_note
def test_a_note_refers_to_its_own_equations_and_sections_correctly(note):
    text = without_code(read(note))
    tags, number = set(TAG.findall(text)), int(note.name[:2])
    for equation in re.findall(rf"\(({number}\.\d+)\)", read(note)):
        assert equation in tags, f"({equation}) is not an equation of {note.name}"
    for section in re.findall(r"[Ss]ection (\d+(?:\.\d+)?)(?! of)", text):
        assert section in sections(text), f"{note.name} has no section {section}"


@every_note
def test_every_function_that_cites_an_equation_is_named_in_the_note(note):
    """The other way round: from the equation the reader finds the line that computes it."""
    text, number, named = read(note), note.name[:2], 0
    for path in files(".py"):
        if not path.is_relative_to(ROOT / "code_examples"):
            continue
        for name, docstring, around in definitions(path):
            if any(n == number for n, _ in CITED_EQUATIONS.findall(docstring)):
                named += 1
                seen = any(re.search(rf"`{word}[`(.]", text) for word in (name, *around))
                assert seen, f"{path.name}: {name} cites {note.name}, which does not name it"
    assert named


def test_every_section_that_is_cited_exists():
    for path, number, section in citations(CITED_SECTIONS):
        text = by_number(number)
        assert text, f"{path} cites notes/{number}, which does not exist"
        assert section in sections(text), f"{path} cites notes/{number} section {section}"


# --- Links, figures, code


@pytest.mark.parametrize("page", files(".md"), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for _, label, target in LINK.findall(
        without_code(read(page).replace("[`", "[").replace("`]", "]"))
    ):
        if re.match(r"[a-z]+:", target):
            continue  # another site
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"[{label}]({target})"
        assert path.is_relative_to(ROOT), f"[{label}]({target}) leaves the repository"
        if anchor:
            assert anchor in anchors(read(path)), f"[{label}]({target}): no such heading"


@every_note
def test_functions_that_a_note_links_are_defined_there(note):
    linked = re.findall(r"\[`(\w+)(?:\([^`]*\))?`\]\(([^)\s#]+\.py)\)", read(note))
    assert linked
    for name, target in linked:
        names = {n for n, _, _ in definitions((note.parent / target).resolve())}
        assert name in names, f"{target} defines no {name}"


@every_note
def test_python_blocks_of_a_note_compile_and_import_what_exists(note):
    for block in re.findall(r"^```python\n(.*?)^```", read(note), flags=re.MULTILINE | re.DOTALL):
        tree = compile(block, note.name, "exec", flags=ast.PyCF_ONLY_AST)
        modules = {"utils": utils}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "code_examples":
                modules |= {a.name: getattr(code_examples, a.name) for a in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                module = modules.get(node.value.id)
                assert module is None or hasattr(module, node.attr), ast.unparse(node)


@every_note
def test_tests_that_a_note_names_exist(note):
    """By their name, or by a part of it as in `-k both_signs`; other test_... are metrics."""
    names = [n for path in (ROOT / "tests").glob("test_*.py") for n, _, _ in definitions(path)]
    code = "".join(read(path) for path in files(".py") if path.parent.name == "code_examples")
    parts = re.findall(r"-k (\w+|\"[^\"]+\")", read(note))
    for part in (p for quoted in parts for p in quoted.strip('"').split(" or ")):
        assert part == "NAME" or any(part in name for name in names), f"no test matches {part}"
    for name in re.findall(r"`(test_\w+?)(?:_\d+)?`", read(note)):
        metric = f'"{name}' in code or f"{name}=" in code
        assert name in names or metric, f"neither a test nor a metric: {name}"


def writes(script):
    """The pictures that a figure script says it writes; some with a star."""
    docstring = ast.get_docstring(ast.parse(read(script))) or ""
    _, _, said = docstring.partition("Writes:")
    return re.findall(r"[\w*]+\.(?:png|gif)", said)


@every_note
def test_under_every_figure_stands_the_command_that_draws_it(note):
    exact = {picture: script for script in FIGURES.glob("*.py") for picture in writes(script)}
    lines = read(note).splitlines()
    for i, line in enumerate(lines):
        for _, _, target in (m for m in LINK.findall(line) if m[0]):
            picture, below = Path(target).name, " ".join(lines[i + 1 : i + 4])
            command = re.search(r"`python -m notes\.figures\.(\w+)`", below)
            assert command, f"no command under {target}"
            script = FIGURES / f"{command[1]}.py"
            assert script.exists(), command[0]
            if picture in exact:
                assert script == exact[picture], f"{picture} is drawn by {exact[picture].name}"
            said = any(fnmatch.fnmatch(picture, pattern) for pattern in writes(script))
            assert said, f"{script.name} does not say that it writes {picture}"


def test_every_picture_is_shown_somewhere():
    shown = {
        (page.parent / target).resolve()
        for page in files(".md")
        for _, _, target in LINK.findall(read(page))
    }
    kept = {p for p in FIGURES.iterdir() if p.suffix in (".png", ".gif")}
    assert kept <= shown, f"no page shows {sorted(p.name for p in kept - shown)}"


# --- Mathematics as GitHub renders it

# GitHub refuses the first ones. The others pass through Markdown before they reach MathJax: a
# backslash before punctuation is eaten, * and _ may become emphasis, < a tag.
REFUSED = (
    r"\\(?:operatorname|DeclareMathOperator|newcommand|renewcommand|def|mbox|phantom|require)\b"
)
MANGLED = {
    r"\\[^a-zA-Z\s]": "a backslash before punctuation: \\lbrace, \\lVert; no \\, \\; \\!",
    r"\*": "a star: \\ast",
    r"[<>]": "< or >: \\lt, \\gt",
    r"~": "a tilde",
    r"[^\w\s]_": "an underscore after punctuation: x_i^2, not x^{2}_i",
}


def formulas(text):
    """All formulas of a page, display and inline."""
    text = without_code(text)
    return DISPLAY.findall(text) + INLINE.findall(DISPLAY.sub("", text))


@every_note
def test_display_formulas_stand_on_lines_of_their_own(note):
    text = without_code(read(note))
    assert text.count("$$") == 2 * len(DISPLAY.findall(text)), "$$ goes on a line of its own, twice"
    for formula in DISPLAY.findall(text):
        assert "\n\n" not in formula, f"blank line in {formula}"
        taken = re.findall(r"^\s*(?:[-+*#>]\s|=|\d+[.)]\s)", formula, flags=re.MULTILINE)
        assert not taken, f"Markdown takes a line of {formula}"
        assert formula.count(r"\tag{") <= 1, formula
    rest = DISPLAY.sub("", text)
    for paragraph in rest.split("\n\n"):
        assert paragraph.count("$") % 2 == 0, f"an odd number of $ in {paragraph}"
    for before, inside, after in re.findall(r"(.?)\$([^$\n]+)\$(.?)", rest):
        whole = f"{before}${inside}${after}"
        assert inside == inside.strip(), f"spaces within the dollars: {whole}"
        assert not (before + after).strip(" (),.;:?"), f"text touches the dollars: {whole}"


@every_note
def test_formulas_are_balanced_and_free_of_what_github_mangles(note):
    for formula in formulas(read(note)):
        assert not re.search(REFUSED, formula), f"GitHub refuses {formula}"
        for pattern, what in MANGLED.items():
            assert not re.search(pattern, formula), f"{what} in {formula}"
        assert formula.count("{") == formula.count("}"), formula
        depth = list(itertools.accumulate((c == "{") - (c == "}") for c in formula))
        assert min(depth, default=0) >= 0, formula
        assert len(re.findall(r"\\left\b", formula)) == len(re.findall(r"\\right\b", formula)), (
            formula
        )
        begun, ended = (re.findall(rf"\\{w}\{{(\w+)\}}", formula) for w in ("begin", "end"))
        assert sorted(begun) == sorted(ended), formula


@every_note
def test_answers_are_folded_properly(note):
    text = without_code(read(note))
    shape = r"<details>\n<summary>[^<\n]+</summary>\n\n(?:(?!</?details>).)+\n\n</details>"
    folded = re.findall(shape, text, flags=re.DOTALL)
    assert len(folded) == text.count("<details>") == text.count("</details>") >= 8


# --- The worked examples of notes/01, computed again by other means


def stated(value, places=4, note=FUNDAMENTALS):
    """A number as the note prints it; fails if it does not."""
    said = f"{value:.{places}f}"
    assert re.search(rf"(?<![\d.]){re.escape(said)}(?!\d)", read(note)), f"not said: {said}"
    return True


def entropy_of(p):
    """Entropy in nats of probabilities p."""
    return torch.special.entr(torch.as_tensor(p, dtype=torch.float64)).sum().item()


def density_of(x, m=0.0, v=1.0):
    """N(x; m, v) by torch.distributions, a float."""
    return Normal(m, math.sqrt(v)).log_prob(torch.tensor(x, dtype=torch.float64)).exp().item()


def test_likelihood_of_one_gaussian():
    x = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    m, v = (torch.tensor(s, dtype=torch.float64, requires_grad=True) for s in (3.0, 14 / 3))
    nll = -Normal(m, v.sqrt()).log_prob(x).mean()
    nll.backward()
    assert m.grad.abs() < 1e-12
    assert v.grad.abs() < 1e-12
    assert stated(nll.item())
    assert stated(-Normal(0.0, 1.0).log_prob(x).mean().item())


def test_kl_divergences():
    p, q = Normal(0.0, 1.0), Normal(1.0, 2.0)
    fair, loaded = Bernoulli(0.5), Bernoulli(0.9)
    for a, b in ((p, q), (q, p), (fair, loaded), (loaded, fair)):
        assert stated(kl_divergence(a, b).item())
    by_quadrature = quad(
        lambda x: density_of(x) * (math.log(density_of(x)) - math.log(density_of(x, 1.0, 4.0))),
        *(-9, 9),
    )[0]
    assert by_quadrature == pytest.approx(kl_divergence(p, q).item(), abs=1e-6)


def test_bits_per_dimension():
    assert stated(784 * math.log(2), 1)
    assert stated(utils.bits_per_dim(100.0, 784))
    assert stated(784 * math.log(256), 1)
    assert stated(utils.bits_per_dim(86.76, 784))
    assert stated(86.76 / math.log(2), 1)


def test_one_gaussian_for_the_ring():
    ring = utils.density("ring")
    mode = MultivariateNormal(torch.zeros(2).double(), 0.01 * torch.eye(2).double()).entropy()
    cover = MultivariateNormal(torch.zeros(2).double(), 2.01 * torch.eye(2).double())
    x = ring.sample(200_000, torch.Generator().manual_seed(0)).double()
    assert x.T.cov().numpy() == pytest.approx(cover.covariance_matrix.numpy(), abs=0.03)
    assert ring.entropy == pytest.approx(mode.item() + math.log(8), abs=1e-4)
    assert stated(mode.item())
    assert stated(ring.entropy)
    assert stated(cover.entropy().item())
    assert stated(cover.entropy().item() - ring.entropy)
    assert stated(math.log(8))
    on_one_mode = MultivariateNormal(ring.modes[0], 0.01 * torch.eye(2).double())
    cross_entropy = -on_one_mode.log_prob(x).mean().item()
    assert cross_entropy == pytest.approx(398.23, rel=0.01)
    square = (ring.modes - ring.modes[0]).square().sum(1).mean().item() + 2 * 0.01
    exact = math.log(2 * math.pi * 0.01) + square / 0.02
    assert stated(exact, 2)
    assert stated(exact - ring.entropy, 2)


def test_changes_of_variables():
    one = torch.distributions.LogNormal(0.0, 1.0).log_prob(torch.tensor(2.0).double()).exp().item()
    assert stated(one)
    assert stated(density_of(math.log(2)))
    z = torch.tensor([1.0, 2.0], dtype=torch.float64)
    figure = importlib.import_module("notes.figures.fundamentals_change_of_variables")

    def coupling(z):
        return figure.forward(z[None])[0][0]

    jacobian = torch.autograd.functional.jacobian(coupling, z)
    log_normal = Normal(0.0, 1.0).log_prob(z).sum().item()
    assert stated(coupling(z)[1].item())
    assert stated(-log_normal)
    assert stated(-(log_normal - jacobian.slogdet().logabsdet.item()))
    cube = quad(lambda x: density_of(math.cbrt(x)) / (3 * math.cbrt(x) ** 2), 0, 8)[0]
    assert cube == pytest.approx(Normal(0.0, 1.0).cdf(torch.tensor(2.0)).item() - 0.5, abs=1e-6)


def test_posteriors():
    low, high = density_of(0.5, -1.0), density_of(0.5, 1.0)
    assert high / (low + high) == pytest.approx(1 / (1 + math.exp(-1)))
    assert all(map(stated, (low, high, (low + high) / 2, high / (low + high))))
    # one dimension, A = 2, b = 0, sigma = 1, x = 3, by quadrature over z
    evidence, first, second = (
        quad(lambda z, k=k: z**k * density_of(3.0, 2 * z) * density_of(z), -9, 9)[0]
        for k in range(3)
    )
    assert stated(-math.log(evidence))
    assert first / evidence == pytest.approx(1.2, abs=1e-6)
    assert second / evidence - 1.2**2 == pytest.approx(0.2, abs=1e-6)


def test_the_posterior_of_the_linear_gaussian_model():
    """notes/01 eqs. (1.21) and (1.23) against conditioning the joint Gaussian of z and x."""
    g = torch.Generator().manual_seed(0)
    a, b, x = (torch.randn(*size, generator=g).double() for size in ((5, 3), (5,), (5,)))
    sigma = 0.7
    m = a.T @ a + sigma**2 * torch.eye(3)
    mean, cov = torch.linalg.solve(m, a.T @ (x - b)), sigma**2 * m.inverse()
    marginal = a @ a.T + sigma**2 * torch.eye(5)
    gain = a.T @ marginal.inverse()  # of the joint covariance [[I, A^T], [A, marginal]]
    torch.testing.assert_close(mean, gain @ (x - b))
    torch.testing.assert_close(cov, torch.eye(3).double() - gain @ a)
    z = torch.randn(3, generator=g).double()
    joint = Normal(0.0, 1.0).log_prob(z).sum() + Normal(b + a @ z, sigma).log_prob(x).sum()
    bayes = MultivariateNormal(b, marginal).log_prob(x) + MultivariateNormal(mean, cov).log_prob(z)
    torch.testing.assert_close(joint, bayes)


def test_how_many_draws_from_the_prior_are_needed():
    """notes/01 eq. (1.19), by quadrature in one dimension."""
    sigma = 0.1
    square = quad(lambda z: density_of(0.0, z, sigma**2) ** 2 * density_of(z), -1, 1)[0]
    ratio = square / density_of(0.0, 0.0, 1 + sigma**2) ** 2
    assert ratio == pytest.approx((1 + sigma**2) / (sigma * math.sqrt(2 + sigma**2)), rel=1e-6)
    exponent = math.floor(32 * math.log10(ratio))
    assert rf"$\rho = {ratio**32 / 10**exponent:.1f} \cdot 10^{{{exponent}}}$" in read(FUNDAMENTALS)


def test_losses_from_logits():
    logit, white = torch.tensor(-10.0, dtype=torch.float64, requires_grad=True), torch.ones(())
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logit, white.double())
    (slope,) = torch.autograd.grad(bce, logit)
    assert stated(-slope.item(), 5)
    (slope,) = torch.autograd.grad((logit.sigmoid() - white).square(), logit)
    assert stated(-slope.item(), 7)
    (slope,) = torch.autograd.grad((1 - logit.sigmoid()).log(), logit)
    assert stated(-slope.item(), 7)  # the generator's saturating loss
    assert torch.tensor(20.0).sigmoid() == 1
    assert stated(entropy_of([0.5, 0.5]))
    assert stated(math.sqrt(0.005))


def test_pca_of_four_points():
    x = torch.tensor([[3, 1], [1, 3], [-3, -1], [-1, -3]]).double()
    _, singular, v = torch.linalg.svd(x, full_matrices=False)
    assert singular.square().tolist() == pytest.approx([32, 8])
    codes = (x @ v[0]).abs()
    assert stated(codes[0].item())
    assert (x[0] @ v[0] * v[0]).tolist() == pytest.approx([2, 2])
    assert (x - torch.outer(x @ v[0], v[0])).square().sum().item() == pytest.approx(8)


def test_no_space_beats_the_principal_one():
    """notes/01 eqs. (1.31) to (1.33) at random spaces and at the best one."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=g).double() @ torch.randn(6, 6, generator=g).double()
    values, vectors = torch.linalg.eigh(x.T @ x)  # ascending
    for trial in range(20):
        u = (
            torch.linalg.qr(torch.randn(6, 2, generator=g).double())[0]
            if trial
            else vectors[:, -2:]
        )
        error = (x - x @ u @ u.T).square().sum().item()
        trace = (x.T @ x).trace() - (u.T @ x.T @ x @ u).trace()
        assert error == pytest.approx(trace.item())
        weights = (u.T @ vectors).square().sum(0)
        assert weights.sum().item() == pytest.approx(2)
        assert weights.max() <= 1 + 1e-12
        assert error >= values[:-2].sum() - 1e-9
        assert trial or error == pytest.approx(values[:-2].sum().item())


def test_auroc_by_hand():
    pairs = itertools.product((2, 5), (1, 2, 4))
    won = sum((a > n) + 0.5 * (a == n) for a, n in pairs)
    assert f"${won} / 6 = {won / 6:.2f}$" in read(FUNDAMENTALS)


def test_denoisers():
    """Tweedie's formula and the least loss, on two points, a Gaussian, and the moons."""
    weights = [density_of(0.1, c, 0.25) for c in (-1.0, 1.0)]
    assert stated((weights[1] - weights[0]) / sum(weights))
    shrink = 1 / (1 + 0.25)
    assert shrink == pytest.approx(1 - 0.25 * 0.8)
    floor = quad(lambda y: density_of(y, 0.0, 1.25) * (0.25 * shrink), -9, 9)[0]
    assert floor == pytest.approx(0.25 - 0.0625 * 0.8, abs=1e-6)
    moons, sigma = utils.density("moons"), 0.5
    wide = utils.densities.Dots("noised", moons.centres, std=math.hypot(moons.std, sigma))
    g = torch.Generator().manual_seed(0)
    noisy = wide.sample(50, g).double().requires_grad_()
    (score,) = torch.autograd.grad(wide.log_prob(noisy).sum(), noisy)
    grid = torch.cartesian_prod(*[torch.arange(-7, 7, 0.2, dtype=torch.float64)] * 2)
    mass = wide.log_prob(grid.requires_grad_())
    (field,) = torch.autograd.grad(mass.sum(), grid)
    square = (mass.exp() * field.square().sum(1)).sum().item() * 0.2**2
    assert stated(square)
    assert stated(2 * sigma**2 - sigma**4 * square)
    assert stated(moons.entropy, 3)
    # E[x | noisy]: which dot it was, and the mean of two Gaussians' product
    distance = torch.cdist(noisy, moons.centres).square()
    dots = (-distance / (2 * wide.std**2)).softmax(dim=1) @ moons.centres
    share = moons.std**2 / wide.std**2
    torch.testing.assert_close(
        noisy + sigma**2 * score, share * noisy + (1 - share) * dots, atol=1e-9, rtol=0
    )


def test_small_noise_changes_the_score_by_order_sigma_squared():
    """notes/01 eq. (1.48) for N(0, 1), where (p'' / p)' = 2 x."""
    x, sigma = 1.3, 0.05
    exact = -x / (1 + sigma**2)
    assert exact == pytest.approx(-x + sigma**2 / 2 * 2 * x, abs=2 * x * sigma**4)


def test_penalties():
    assert stated(kl_divergence(Bernoulli(0.02), Bernoulli(0.5)).item())
    on = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    kl_divergence(Bernoulli(torch.tensor(0.02).double()), Bernoulli(on)).backward()
    assert on.grad.item() == pytest.approx((0.3 - 0.02) / (0.3 * 0.7), rel=1e-6)
    rows = torch.tensor([[2.0, 0.0], [0.6, 0.8]]).double()  # squared norms 4 and 1
    bias = torch.tensor([0.5, 0.9]).double().logit()
    jacobian = torch.autograd.functional.jacobian(
        lambda x: (rows @ x + bias).sigmoid(), torch.zeros(2).double()
    )
    assert stated(jacobian.square().sum().item())


def test_adversarial_and_contrastive_bounds():
    p, q = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.1, 0.1, 0.8]).double()
    best = p / (p + q)
    value = (p * best.log() + q * (1 - best).log()).sum()
    js = (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2
    assert value.item() == pytest.approx(2 * js - 2 * math.log(2))
    for other in (best * 0.9, best.sqrt()):
        assert (p * other.log() + q * (1 - other).log()).sum() < value
    assert stated(math.log(128))
    assert stated(math.log(64))
    joint = torch.tensor([[0.45, 0.05], [0.05, 0.45]]).double()  # of x and y in {0, 1}
    information = kl(joint.flatten(), joint.sum(1).outer(joint.sum(0)).flatten())
    bounds = []
    for k in (2, 4, 8):
        loss = 0.0
        for x, *ys in itertools.product(range(2), repeat=1 + k):  # the partner comes first
            chance = joint[x, ys[0]] * 0.5 ** (k - 1)
            scores = torch.stack([joint[x, y] / (0.5 * 0.5) for y in ys]).log()
            loss -= chance.item() * scores.log_softmax(0)[0].item()
        bounds.append(math.log(k) - loss)
    assert bounds == sorted(bounds)
    assert bounds[-1] <= information
    assert bounds[-1] > 0.8 * information


def kl(p, q):
    """KL(p || q) in nats of probabilities."""
    return (p * (p / q).log()).sum().item()


def test_mean_over_images_and_parameters():
    assert stated((500 * 0.005 + 500 * 0.005 + 24 * 0.010) / 1024)
    assert stated((0.005 + 0.005 + 0.010) / 3)
    model = code_examples.autoencoder.build(code_examples.autoencoder.Config(), (1, 28, 28))
    parts = [sum(p.numel() for p in m.parameters()) for m in (model.encoder, model.decoder)]
    for count in (*parts, sum(parts)):
        assert f"{count:,}" in read(FUNDAMENTALS)
    assert stated(1 - math.exp(-4.5))  # a normal point of the plane within 3 of the origin
    assert stated(torch.tensor(1.0).sigmoid().item())


# --- The worked examples of notes/03, computed again by other means

said = partial(stated, note=VAES)


def expectation(f, m=0.0, s=1.0):
    """E[f(z)] for z ~ N(m, s^2) by Gauss-Hermite quadrature: exact for polynomials."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    return float(weights @ f(m + s * nodes)) / math.sqrt(2 * math.pi)


def log_joint(z, x=3.0):
    """log p(x, z) of the note's example: z ~ N(0, 1), x ~ N(2 z, 1)."""
    return -math.log(2 * math.pi) - 0.5 * z**2 - 0.5 * (x - 2 * z) ** 2


def test_explaining_away_and_the_gap_of_a_diagonal_gaussian():
    joint = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 3]]).double()  # of z_1, z_2 and x
    gain = joint[:2, 2] / joint[2, 2]
    covariance = joint[:2, :2] - torch.outer(gain, joint[:2, 2])
    assert said((2 * gain[0]).item())
    assert said(covariance[0, 1].item() / covariance[0, 0].item(), 1)
    posterior = MultivariateNormal(torch.zeros(2).double(), covariance)
    gaps = {
        v: kl_divergence(MultivariateNormal(posterior.mean, v * torch.eye(2).double()), posterior)
        for v in (0.4, 0.5, 0.6, 2 / 3)
    }
    assert min(gaps, key=gaps.get) == 0.5
    assert said(gaps[0.5].item())


def test_the_elbo_and_its_gap_for_five_choices_of_q():
    """Monte Carlo is not needed: the integrand is a polynomial in z but for log q's constant."""
    evidence = Normal(0.0, math.sqrt(5.0)).log_prob(torch.tensor(3.0).double()).item()
    posterior = Normal(torch.tensor(1.2).double(), math.sqrt(0.2))
    for m, v in ((0.0, 1.0), (1.2, 0.4), (1.2, 0.1), (1.2, 1e-4), (1.2, 0.2)):
        q = Normal(torch.tensor(m).double(), math.sqrt(v))
        elbo = expectation(log_joint, m, math.sqrt(v)) + q.entropy().item()
        gap = kl_divergence(q, posterior).item()
        assert elbo + gap == pytest.approx(evidence)
        assert said(elbo)
        assert gap < 1e-9 or said(gap)
    # the draw-by-draw gradient for the mean at the optimum
    slope = partial(lambda z, power: (2 * (3 - 2 * z) - 1.2) ** power, power=1)
    assert expectation(slope, 1.2, math.sqrt(0.2)) == pytest.approx(0, abs=1e-9)
    assert said(expectation(lambda z: slope(z) ** 2, 1.2, math.sqrt(0.2)), 1)


def test_the_averaged_bound_and_the_averaged_kl_split_as_the_note_says():
    """notes/03 eqs. (3.5) and (3.56) for finitely many x and z."""
    g = torch.Generator().manual_seed(0)
    sizes = ((4,), (3,), (3, 4), (4, 3))  # p(x), p(z), p(x|z), q(z|x)
    p_x, p_z, x_z, q = (torch.rand(*n, generator=g).double() for n in sizes)
    p_x, p_z = p_x / p_x.sum(), p_z / p_z.sum()
    x_z, q = x_z / x_z.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    joint = (p_z[:, None] * x_z).T  # (x, z)
    model = joint.sum(1)
    elbo = (q * (joint / q).log()).sum(1)
    gaps = sum(p_x[i].item() * kl(q[i], joint[i] / model[i]) for i in range(4))
    total = entropy_of(p_x) + kl(p_x, model) + gaps
    assert -(p_x @ elbo).item() == pytest.approx(total)
    both = kl((p_x[:, None] * q).flatten(), joint.flatten())
    assert total == pytest.approx(entropy_of(p_x) + both)
    rate = sum(p_x[i].item() * kl(q[i], p_z) for i in range(4))
    aggregate = p_x @ q
    information = kl((p_x[:, None] * q).flatten(), torch.outer(p_x, aggregate).flatten())
    assert rate == pytest.approx(information + kl(aggregate, p_z))
    distortion = -(p_x[:, None] * q * x_z.T.log()).sum().item()
    assert entropy_of(p_x) - distortion <= information <= rate


def test_variance_of_gradient_estimators():
    m, s = 1.0, 0.1

    def variance(f):
        return expectation(lambda e: f(e) ** 2) - expectation(f) ** 2

    path = variance(lambda e: 2 * (m + s * e))
    score = variance(lambda e: (m + s * e) ** 2 * e / s)
    best = variance(lambda e: ((m + s * e) ** 2 - m**2 - 3 * s**2) * e / s)
    for v in (path, score, best):
        assert said(v, 2)
    assert f"{score / path:,.0f} draws for each one of the path" in read(VAES)
    assert said(math.ceil(best / path), 0)
    others = 49 * variance(lambda e: (m + s * e) ** 2) / s**2
    assert said(best + others, 2)
    assert said(variance(lambda e: (1 + e) * e), 0)  # question 8 for m = s = 1: 3 = m^2 / s^2 + 2
    w = 3.0
    assert said(expectation(lambda e: (w * np.cos(w * e)) ** 2))
    assert said(expectation(lambda e: (np.sin(w * e) * e) ** 2))


def test_kl_to_the_prior_by_hand():
    prior = Normal(0.0, 1.0)
    for mu, sigma in ((1.0, 0.1), (0.0, 2.0), (0.0, 0.5)):
        q = Normal(torch.tensor(mu).double(), torch.tensor(sigma).double())
        assert said(kl_divergence(q, prior).item())
        one = torch.tensor([[mu]]).double(), torch.tensor([[2 * math.log(sigma)]]).double()
        assert vae.kl_to_standard_normal(*one).item() == pytest.approx(
            kl_divergence(q, prior).item()
        )
    black, white = (
        [quad(lambda z, k=k, c=c: z**k * density_of(z) * c(z), -12, 12)[0] for k in (0, 2)]
        for c in (lambda z: math.exp(-(z**2) / 2), lambda z: -math.expm1(-(z**2) / 2))
    )
    assert said(black[0])
    assert said(white[0])
    assert black[1] / black[0] == pytest.approx(0.5)
    assert said(white[1] / white[0])


def test_anchors_without_training():
    data = utils.load_images("mnist5k")
    once = vae.binarize_once(data)
    cut = [vae.binarize(x, "threshold") for x in (data.train, data.test)]
    for train, test in ((data.train, data.test), (once.train, once.test), cut):
        train, test = train.double().flatten(1), test.double().flatten(1)
        p = (train.sum(0) + 0.5) / (len(train) + 1)
        cross_entropy = torch.nn.functional.binary_cross_entropy(
            p.expand_as(test), test, reduction="none"
        )
        assert said(cross_entropy.sum(1).mean().item(), 2)
    assert said(Bernoulli(data.test.double()).entropy().flatten(1).sum(1).mean().item(), 2)
    spectrum = torch.linalg.eigvalsh(data.train.double().flatten(1).T.cov(correction=0))
    assert said(spectrum[-1].item(), 2)
    assert "$\\sigma = 1$ would use 12 dimensions" in read(VAES)
    assert "$\\sigma^2 = \\frac 1 2$ it would use 22, and 68 with $\\sigma^2 = 0.1$" in read(VAES)
    assert [(spectrum > v).sum().item() for v in (1.0, 0.5, 0.1)] == [12, 22, 68]
    assert said(784 * math.log(2), 1)
    assert said(392 * math.log(2 * math.pi), 1)
    grey = quad(lambda x: 0.3**x * 0.7 ** (1 - x), 0, 1)[0]
    assert grey == pytest.approx((2 * 0.3 - 1) / math.log(0.3 / 0.7))
    assert said(392 * math.log(2), 1)
    assert said(Normal(0.0, 1.0).entropy().neg().exp().item())  # the sigma of entropy 0


def test_the_table_of_kl_weights():
    d, rows = 64 * 64 * 3, read(VAES)
    weights = {
        "1": 1.0,
        "0.000885": 144 / 162_770,
        "0.00025": 0.00025,
        "0.000244": 1 / (64 * 64),
        "0.000163": 2 / d,
        "0.0000814": 1 / d,
        "0.00000163": 0.02 / d,
    }
    for name, w in weights.items():
        cells = next(r for r in rows.splitlines() if r.startswith(f"| {name} |")).split("|")[3:7]
        found = [float(c.replace(",", "")) for c in cells]
        # compare the weights of the two terms in the loss and in the ELBO of that sigma
        expected = [w / (2 * sigma2 / d) for sigma2 in (0.5, 1.0, 0.01)]
        assert found == pytest.approx([*expected, math.sqrt(w * d / 2)], rel=1e-3), name
    assert said(0.00025 * d / (2 * 0.05**2), 1)
    assert said(2 * 0.05**2 / d, 9)
    assert said(1 / 784, 5)


def test_importance_weights_by_hand():
    log_w = torch.tensor([-100.0, -102.0]).double()
    assert said(vae.iwae_bound(log_w[:, None]).item())
    share = log_w.softmax(0)
    assert all(map(said, share.tolist()))
    assert said(1 / share.square().sum().item())
    for r in (0.7, 2.0, 5.0):
        ratio = quad(lambda z, r=r: density_of(z) ** 2 / density_of(z, 0.0, r), -12, 12)[0]
        assert ratio == pytest.approx(r / math.sqrt(2 * r - 1), rel=1e-6)
    assert said(2 / math.sqrt(3))
    assert f"{(2 / math.sqrt(3)) ** 50:,.0f} in 50" in read(VAES)
    bounds = {}
    for k in (1, 2, 3, 40):  # weights 1/2 and 3/2: the number of large ones is binomial
        chances = [math.comb(k, n) / 2**k for n in range(k + 1)]
        logs = [math.log((n * 1.5 + (k - n) * 0.5) / k) for n in range(k + 1)]
        bounds[k] = float(np.dot(chances, logs))
    assert list(bounds.values()) == sorted(bounds.values())
    assert said(bounds[1])
    assert said(bounds[2])
    assert bounds[40] == pytest.approx(-0.25 / 80, rel=0.03)


def test_the_encoders_signal_to_noise_falls_with_more_draws():
    """notes/03 eq. (3.36) for the posterior N(0, 1) and q = N(0.5, 1)."""
    g = torch.Generator().manual_seed(0)
    ratios = []
    for k in (16, 64):
        mean = torch.full((100_000, 1), 0.5, dtype=torch.float64, requires_grad=True)
        z = mean + torch.randn(100_000, k, generator=g, dtype=torch.float64)
        log_w = 0.5 * (z - mean).square() - 0.5 * z.square()
        (slope,) = torch.autograd.grad(vae.iwae_bound(log_w.T).sum(), mean)
        assert slope.mean().item() == pytest.approx(-math.exp(0.25) * 0.5 / k, rel=0.1)
        ratios.append((slope.mean() / slope.std()).abs().item())
    assert ratios[0] / ratios[1] == pytest.approx(2.0, rel=0.1)


def test_rate_and_distortion_of_one_gaussian_dimension():
    """D + beta R minimised over decoder slope, encoder slope and encoder variance by search."""
    from scipy.optimize import minimize

    def point(parameters, lam):
        a, alpha, log_v = parameters
        v = math.exp(log_v)
        error = (1 - a * alpha) ** 2 * lam + a**2 * v
        return 0.5 * (alpha**2 * lam + v - 1 - log_v), 0.5 * error  # sigma = 1, no constant

    for lam, beta in ((4, 1), (4, 2), (4, 5), (9, 1), (2, 1), (9, 4), (2, 4), (0.9, 1)):
        found = minimize(
            lambda t, lam=lam, beta=beta: np.dot(point(t, lam), (beta, 1)),
            [0.7, 0.3, -0.5],
            method="Nelder-Mead",
            options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 10_000},
        )
        rate, distortion = point(found.x, lam)
        if lam > beta:
            assert rate == pytest.approx(0.5 * math.log(lam / beta), abs=1e-4)
            assert distortion == pytest.approx(beta / 2, abs=1e-4)
            assert said(0.5 * math.log(lam / beta))
        else:
            assert rate == pytest.approx(0, abs=1e-4)
            assert distortion == pytest.approx(lam / 2, abs=1e-4)


def test_free_bits_by_hand():
    mu = torch.tensor([[0.1, 2.0]])
    nats = vae.kl_per_dimension(mu, torch.zeros(1, 2))
    assert said(nats[0, 0].item(), 3)
    assert said(vae.free_bits(nats, nats=0.5).item(), 1)


def test_units_of_evaluation():
    assert said(utils.bits_per_dim(86.76, 784))
    assert said(86.76 / 784)
    assert said(32 * 32 / 784, 3)
    assert said(math.log(100))
    assert said(math.log(10))
    assert said(math.log(4000))
    assert said(20 - math.log(4000), 1)
    assert said(math.log(1000))


def test_probabilistic_pca_by_hand():
    spectrum = torch.tensor([4.0, 1.0, 0.5, 0.5]).double()
    noise = spectrum[1:].mean()
    model = torch.diag(torch.cat([spectrum[:1], noise.expand(3)]))

    def nll(c):  # E[-log N(x; 0, c)] for x with covariance diag(spectrum)
        log_det = torch.linalg.slogdet(2 * math.pi * c).logabsdet
        return 0.5 * (log_det + (c.inverse() @ spectrum.diag()).trace()).item()

    truth = MultivariateNormal(torch.zeros(4).double(), spectrum.diag()).entropy().item()
    assert said((spectrum[0] - noise).item())
    assert said(0.5 * (spectrum[0] / noise).log().item())
    assert said(nll(model))
    assert said(truth)
    assert said(nll(model) - truth)
    g = torch.Generator().manual_seed(0)
    for scale in (1e-3, 0.1, 1.0):
        for _ in range(50):
            w = torch.zeros(4, 1).double()
            w[0] = (spectrum[0] - noise).sqrt()
            w += scale * torch.randn(4, 1, generator=g).double()
            other = noise * torch.exp(scale * torch.randn(1, generator=g).double())
            assert nll(w @ w.T + other * torch.eye(4).double()) >= nll(model) - 1e-12


# --- Note 2, recomputed

told = partial(stated, note=GANS)


def test_what_the_game_is_worth():
    """notes/02 sections 1 to 3: losses by hand, the Jensen-Shannon divergence, the slopes."""
    for right in (0.5, 0.9, 0.1):
        logit = torch.tensor([right]).logit()
        loss = code_examples.gans.discriminator_loss(logit, -logit).item()
        assert loss == pytest.approx(-2 * math.log(right), rel=1e-5)
        assert told(loss)
    assert told(math.log(2))
    assert told(1 / (1 + math.exp(-0.5)))
    g = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 9, generator=g).double()
    p, q = p / p.sum(), q / q.sum()
    m, best = (p + q) / 2, p / (p + q)
    value = (p * best.log() + q * (1 - best).log()).sum().item()
    divergence = (kl(p, m) + kl(q, m)) / 2
    assert value == pytest.approx(2 * divergence - 2 * math.log(2))
    # eq. (2.7): the slope of the non-saturating loss is that of KL(q, p) - 2 JS, at fixed D
    a = q.log().requires_grad_()
    now = a.softmax(0)
    mixed = (p + now) / 2
    target = (now * (now / p).log()).sum()
    target = target - (p * (p / mixed).log()).sum() - (now * (now / mixed).log()).sum()
    (expected,) = torch.autograd.grad(target, a)
    (slope,) = torch.autograd.grad(-(a.softmax(0) * best.log()).sum(), a)
    torch.testing.assert_close(slope, expected)


def test_distances_of_gaussians_and_the_size_of_a_clipped_critic():
    u = (torch.arange(400_000).double() + 0.5) / 400_000
    half = (Normal(0.0, 1.0).icdf(u) - Normal(0.0, 0.5).icdf(u)).abs().mean().item()
    assert half == pytest.approx(0.5 * math.sqrt(2 / math.pi), abs=1e-4)
    assert told(half)
    assert told(0.01 * math.sqrt(128))
    assert told(0.01 * math.sqrt(2 * 128), 2)
    assert told(0.01 * math.sqrt(784 * 128))
    hidden = 0.01 * 128 * 0.01 * math.sqrt(128)  # question 7, but for the first matrix
    assert told(0.01 * math.sqrt(2 * 128) * hidden)
    assert told(0.01 * math.sqrt(784 * 128) * hidden)
    worst = [torch.full(n, 0.01).double() for n in ((128, 2), (128, 128), (1, 128))]
    assert math.prod(torch.linalg.matrix_norm(w, 2).item() for w in worst) == pytest.approx(
        0.16 * hidden  # weights that are all equal reach the bound
    )
    both = quad(lambda u: abs(norm.ppf(u) - norm.ppf(u, 0.5, 0.5)), 0, 1)[0]
    parts = 0.5 * math.sqrt(2 / math.pi) * math.exp(-0.5), 0.5 * (1 - 2 * norm.cdf(-1))
    assert sum(parts) == pytest.approx(both, abs=1e-7)
    assert all(map(told, (*parts, both)))
    equal = math.sqrt(8 / 3 * math.log(2))
    assert Normal(0.0, 1.0).log_prob(torch.tensor(equal)).item() == pytest.approx(
        Normal(0.0, 2.0).log_prob(torch.tensor(equal)).item(), abs=1e-6
    )
    assert told(equal**2)
    assert told(equal)


def test_the_smallest_gan_circles_and_r1_damps_it():
    """notes/02 eqs. (2.18) and (2.19), by autograd on the losses."""

    def velocity(state, gamma=0.0):
        theta, psi = state
        play = torch.nn.functional.softplus
        loss_g = play(-psi.detach() * theta)
        loss_d = play(psi * theta.detach()) + gamma * 0.5 * psi.square()
        (down,) = torch.autograd.grad(loss_g, theta, create_graph=True)
        (side,) = torch.autograd.grad(loss_d, psi, create_graph=True)
        return -down, -side

    for gamma, largest in ((0.0, 0.0), (1.0, -0.5), (2.0, -0.1340)):
        rows, step = [], 1e-4
        for move in ((step, 0.0), (0.0, step)):
            state = torch.tensor(move, dtype=torch.float64, requires_grad=True)
            rows.append([v.item() / step for v in velocity((state[0], state[1]), gamma)])
        values = torch.linalg.eigvals(torch.tensor(rows).T)
        assert values.real.max().item() == pytest.approx(largest, abs=0.02)
    assert told(0.1340)


def test_shares_of_good_samples():
    for dims in (1, 2, 3):
        assert told(chi2.cdf(9, dims))
    assert told(math.log(0.9 / 0.1))


def test_what_a_perfect_discriminator_says_about_a_lost_mode():
    """notes/02 sections 2.2 and 8, by sums over finitely many values."""
    for modes in (2, 8, 25):
        p, q = torch.full((modes,), 1 / modes).double(), torch.eye(modes).double()[0]
        best = p / (p + q)
        loss = -(p * best.log() + torch.special.xlogy(q, 1 - best)).sum().item()
        assert told(loss)
        mixed = (p + q) / 2
        twice_js = kl(p, mixed) + math.log(1 / mixed[0].item())
        assert 2 * math.log(2) - loss == pytest.approx(twice_js)
        if modes == 2:
            assert told(twice_js / 2)
        if modes == 8:
            assert told(twice_js)
            assert told(math.log(modes) - twice_js)
            u = q / p  # section 4: (2.7) is the mean of a convex function of q / p
            convex = (p * (1 + u) * (1 + u).log()).sum().item() - 2 * math.log(2)
            assert convex == pytest.approx(math.log(modes) - twice_js)


def test_other_games_and_what_they_measure():
    """notes/02 section 4, least squares with 1, -1 and 0; section 5.4, hinge; by search over a."""
    g = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 7, generator=g).double()
    p, q = p / p.sum(), q / q.sum()
    a = torch.linspace(-1, 1, 20_001).double()[:, None]
    squares = p * (a - 1).square() + q * (a + 1).square()
    best = a[squares.argmin(0), 0]
    assert best.numpy() == pytest.approx(((p - q) / (p + q)).numpy(), abs=1e-4)
    chi_squared = ((p - q).square() / (p + q)).sum().item()
    assert ((p + q) * best.square()).sum().item() == pytest.approx(chi_squared, abs=1e-3)
    wide = torch.linspace(-3, 3, 601).double()[:, None]
    hinge = (p * (1 - wide).relu() + q * (1 + wide).relu()).amin(0).sum().item()
    assert hinge == pytest.approx(2 - (p - q).abs().sum().item(), abs=1e-9)


def test_smoothing_moves_the_value_of_a_blind_discriminator():
    logits = torch.linspace(-4, 4, 8_001).double()
    losses = 0.9 * (-logits).exp().log1p() + 1.1 * logits.exp().log1p()
    assert losses.min().item() == pytest.approx(1.3763, abs=1e-4)
    assert logits[losses.argmin()].sigmoid().item() == pytest.approx(0.45, abs=1e-3)
    assert told(-0.9 * math.log(0.45) - 1.1 * math.log(0.55))


def round_matrix(rate, beta, in_turns):
    """One round of both players of the Dirac-GAN near its solution: theta, psi and two momenta."""

    def play(theta, psi, m_theta, m_psi):
        m_psi = beta * m_psi - 0.5 * theta
        seen = psi + rate * m_psi if in_turns else psi
        m_theta = beta * m_theta + 0.5 * seen
        return [theta + rate * m_theta, psi + rate * m_psi, m_theta, m_psi]

    return np.array([play(*unit) for unit in np.eye(4)]).T


def test_momentum_drives_the_players_outwards():
    """notes/02 sections 6.1 and 7.2: moduli of the exact eigenvalues against the expansion."""
    for beta in (-0.5, 0.0, 0.5, 0.9):
        h = 0.005
        for in_turns in (False, True):
            exact = abs(np.linalg.eigvals(round_matrix(h * (1 - beta), beta, in_turns))).max()
            factor = beta / (1 - beta) / 4 if in_turns else (1 + beta) / (1 - beta) / 8
            assert exact - 1 == pytest.approx(h**2 * factor, rel=0.01, abs=1e-9)
    together = abs(np.linalg.eigvals(round_matrix(0.1, 0.0, False))).max()
    assert together == pytest.approx(math.sqrt(1 + 0.1**2 / 4))
    half = abs(np.linalg.eigvals(round_matrix(0.05, 0.5, True))).max()
    assert told(half)
    assert half == pytest.approx(1 + 0.1**2 / 4, abs=5e-5)
    # question 12
    after = [
        abs(np.linalg.eigvals(round_matrix(0.02 * (1 - b), b, True))).max() ** 10_000
        for b in (0.0, 0.5, 0.9)
    ]
    assert after[0] == pytest.approx(1, abs=1e-6)
    assert told(after[1])
    assert told(math.e)
    assert told(after[2], 0)
    assert math.exp(9) == pytest.approx(8100, rel=0.001)


def test_unrolling_damps_like_r1():
    """notes/02 eq. (2.25) and below it, by autograd through the discriminator's steps."""
    steps, eta, rows = 5, 0.1, []
    play = torch.nn.functional.softplus
    for move in ((1e-4, 0.0), (0.0, 1e-4)):
        theta, psi = (torch.tensor(m, dtype=torch.float64, requires_grad=True) for m in move)
        foreseen = psi
        for _ in range(steps):
            loss = play(torch.zeros_like(psi)) + play(foreseen * theta)
            (down,) = torch.autograd.grad(loss, foreseen, create_graph=True)
            foreseen = foreseen - eta * down
        (g,) = torch.autograd.grad(play(-foreseen * theta), theta)
        (d,) = torch.autograd.grad(play(psi * theta), psi)
        rows.append([-g.item() / 1e-4, -d.item() / 1e-4])
    gamma = steps * eta / 2
    jacobian = np.array(rows).T
    assert jacobian == pytest.approx(np.array([[-gamma, 0.5], [-0.5, 0.0]]), abs=1e-3)
    values = np.linalg.eigvals(jacobian)
    assert values.real == pytest.approx(-gamma / 2, abs=1e-3)
    assert told(gamma, 2)
    assert told(gamma / 2, 3)


def test_an_average_of_weights_over_noise_and_over_circles():
    d, k = 0.999, np.arange(40_000)
    weights = (1 - d) * d**k
    assert 1 / (weights**2).sum() == pytest.approx(1999)
    for period in (500, 5000):
        left = abs((weights * np.exp(2j * math.pi * k / period)).sum())
        assert told(left)


def test_a_gradient_of_the_sum_sees_no_slope_behind_a_centred_batch():
    x = torch.tensor([0.3, -1.2]).double()

    def centred(x):
        return x - x.mean()

    penalty = code_examples.gans.gradient_penalty(centred, x[:, None], x[:, None])
    jacobian = torch.autograd.functional.jacobian(centred, x)
    assert penalty.item() == pytest.approx(1)
    assert jacobian.diagonal().tolist() == [0.5, 0.5]


def test_moments_do_not_see_the_ring():
    ring = utils.density("ring")
    eye = torch.eye(2).double()
    covariance = ring.modes.T @ ring.modes / 8 + ring.std**2 * eye
    torch.testing.assert_close(covariance, 2.01 * eye)
    moments = torch.zeros(2), 2.01 * eye, torch.zeros(2), covariance
    assert utils.metrics.frechet_distance(*moments) < 1e-9
    good = 8 * ncx2.cdf((3 * ring.std) ** 2 / 2.01, 2, 4 / 2.01)
    assert told(100 * good, 1)
    x = math.sqrt(2.01) * torch.randn(2500, 2, generator=torch.Generator().manual_seed(0))
    modes, share = code_examples.gans.count_modes(x, ring.modes, ring.std)
    assert modes == 8
    assert share == pytest.approx(good, abs=0.02)


def test_pixel_distances_of_digits():
    data = utils.load_images("mnist5k")
    train, test = (x.flatten(1).double() for x in (data.train, data.test))
    assert told(torch.cdist(test, train).amin(1).mean().item(), 2)
    others = torch.cdist(train, train).fill_diagonal_(math.inf)
    assert told(others.amin(1).mean().item(), 2)
    shifted = torch.roll(data.train, 1, -1).flatten(1).double()
    assert told((shifted - train).norm(dim=1).mean().item(), 2)


# --- Note 4, recomputed

shown = partial(stated, note=DIFFUSION)
TWO_STEPS = diffusion.Schedule(torch.tensor([0.9, 0.72], dtype=torch.float64))  # beta = 0.1, 0.2


def number(x):
    """A batch of one number, (1, 1) float64."""
    return torch.full((1, 1), x, dtype=torch.float64)


def gaussian(schedule, s, m=0.0):
    """The best denoiser of data N(m, s^2), by conditioning the joint Gaussian of x_0, eps, x_t."""

    def denoise(x_t, t):
        signal, noise = schedule.at(t, x_t)
        slope = signal * s**2 / (signal**2 * s**2 + noise**2)
        x_0 = m + slope * (x_t - signal * m)
        return x_0, (x_t - signal * x_0) / noise

    return denoise


def test_the_size_of_the_default_network():
    """notes/04 section 4.1: its parameters, and what WholeBlock costs beside a convolution."""
    net = diffusion.UNet((1, 28, 28), diffusion.Config().width, 1000)
    total, whole = (sum(p.numel() for p in part.parameters()) for part in (net, net.whole))
    assert f"{total:,} parameters" in read(DIFFUSION)
    assert 0.78 < whole / total < 0.85  # four fifths
    products = net.whole.down.weight.numel() + net.whole.up.weight.numel()
    assert products < 7 * 7 * net.inner[0].conv1.weight.numel()


def test_two_steps_of_noise_and_the_way_back():
    """notes/04 eqs. (4.1) to (4.13), against two explicit steps and Bayes' rule by quadrature."""
    signal, noise = 1.0, 0.0
    for beta in (0.1, 0.2):
        signal, noise = math.sqrt(1 - beta) * signal, math.sqrt((1 - beta) * noise**2 + beta)
    assert diffusion.q_sample(TWO_STEPS, number(1.0), 1, number(0.0)).item() == pytest.approx(
        signal
    )
    assert diffusion.q_sample(TWO_STEPS, number(0.0), 1, number(1.0)).item() == pytest.approx(noise)
    assert shown(signal**2, 2)
    assert shown(signal)
    assert shown(noise)
    assert shown(0.72 / 0.28)
    assert shown(noise / signal)
    assert shown(math.sqrt(0.1 / 0.9))

    def joint(x, k=0):  # of x at t = 0 (after one step) and x_1 = 0.5, given x_0 = 1
        return x**k * density_of(x, math.sqrt(0.9), 0.1) * density_of(0.5, math.sqrt(0.8) * x, 0.2)

    mass, first, second = (quad(partial(joint, k=k), -9, 9)[0] for k in range(3))
    mean, variance = diffusion.posterior(TWO_STEPS, number(1.0), number(0.5), 1, 0)
    assert mean.item() == pytest.approx(first / mass, abs=1e-7)
    assert variance.item() == pytest.approx(second / mass - (first / mass) ** 2, abs=1e-7)
    assert shown(mean.item())
    assert shown(variance.item())
    for x_0, x_t in ((1.0, 0.0), (0.0, 1.0)):
        assert shown(diffusion.posterior(TWO_STEPS, number(x_0), number(x_t), 1, 0)[0].item())
    mean, variance = diffusion.posterior(TWO_STEPS, number(1.0), number(0.5), 0, -1)
    assert (mean.item(), variance.item()) == (1.0, 0.0)


def test_the_reverse_of_a_small_step_is_gaussian_and_that_of_a_large_one_is_not():
    """notes/04 eq. (4.14), for data of two Gaussians, by quadrature."""

    def before(x):
        return 0.5 * density_of(x, -1.0, 0.1) + 0.5 * density_of(x, 1.0, 0.1)

    def error(beta, x_t):  # of the predicted mean, and the kurtosis of the true reverse step
        alpha, h = 1 - beta, 1e-4

        def joint(x, k=0, c=0.0):
            return (x - c) ** k * before(x) * density_of(x_t, math.sqrt(alpha) * x, beta)

        near = {"points": (x_t,), "limit": 200}
        mass = quad(joint, -4, 4, **near)[0]
        mean = quad(partial(joint, k=1), -4, 4, **near)[0] / mass
        two, four = (quad(partial(joint, k=k, c=mean), -4, 4, **near)[0] / mass for k in (2, 4))
        after = [
            quad(
                lambda x, y=y: before(x) * density_of(y, math.sqrt(alpha) * x, beta), -4, 4, **near
            )
            for y in (x_t - h, x_t + h)
        ]
        score = (math.log(after[1][0]) - math.log(after[0][0])) / (2 * h)
        return abs(mean - (x_t + beta * score) / math.sqrt(alpha)), four / two**2, two / beta

    errors, kurtosis, ratio = zip(*(error(b, 0.3) for b in (0.5, 0.01, 0.001)), strict=True)
    assert kurtosis[0] < 2  # two humps; a Gaussian has 3
    assert kurtosis[2] == pytest.approx(3, abs=0.01)
    assert ratio[2] == pytest.approx(1, abs=0.02)
    assert errors[2] < 1e-6  # Tweedie's formula: exact for the mean


def test_where_the_schedules_spend_their_steps():
    marks = {"linear": (259, 674), "cosine": (496, 936), "sigmoid": (500, 969)}
    for name, (half, hundredth) in marks.items():
        bar = diffusion.make_schedule(name, 1000)
        assert [int((bar < v).nonzero()[0]) for v in (0.5, 0.01)] == [half, hundredth]
        assert f"$t = {hundredth}$" in read(DIFFUSION)
    tau = torch.arange(1, 901) / 1000
    formula = (-0.1 * tau - 9.95 * tau.square()).exp()
    linear = diffusion.make_schedule("linear", 1000)
    raw = ((linear[:900] - 1e-4) / 0.9998).log()
    assert raw.numpy() == pytest.approx(formula.log().numpy(), rel=0.01, abs=1e-3)
    betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2  # of the model meant
    left = np.prod(1 - betas)
    assert shown(left)
    assert shown(math.sqrt(round(left, 4)))
    assert shown(1 / math.sqrt(16_384))
    steps = 1 - linear / torch.cat([torch.ones(1).double(), linear[:-1]])
    ratio = (1 - linear[:-1]) / (1 - linear[1:])  # of tilde beta and beta, from t = 1 on
    assert shown(ratio[0].item())
    assert (ratio[89:] > 0.98).all()
    assert ratio[88] < 0.98
    weights = steps[1:] / (2 * (1 - steps[1:]) * (1 - linear[:-1]))
    for t in (1, 10, 100, 500):
        assert shown(weights[t - 1].item())
    default = diffusion.Schedule(diffusion.make_schedule("sigmoid", 1000))
    first, second = (
        (default.noises / default.signals)[t + 1].item() for t in default.times(10)[:2]
    )
    assert shown(first, 1)
    assert shown(second, 1)
    stops = diffusion.stops(default, diffusion.Config(sampler="dpm++", sampling_steps=10))
    assert f"$t = {', '.join(map(str, stops[:-1]))}$" in read(DIFFUSION)
    fifty = diffusion.stops(default, diffusion.Config(sampler="dpm++", sampling_steps=50))
    assert f"of 50, {len(fifty) - 1} are left" in read(DIFFUSION)


def test_terms_of_the_bound_by_hand():
    """notes/04 eqs. (4.19) to (4.25), against torch.distributions."""
    x_0, x_t, x_0_hat = number(1.0), number(0.5), number(0.3)
    parts = [diffusion.posterior(TWO_STEPS, guess, x_t, 1, 0) for guess in (x_0, x_0_hat)]
    divergence = kl_divergence(*(Normal(mean, variance.sqrt()) for mean, variance in parts))
    term = diffusion.bound_terms(TWO_STEPS, x_0, x_0_hat, torch.tensor([1])).item()
    assert term == pytest.approx(divergence.item())
    assert shown(term / 0.7**2)
    eps, eps_hat = (diffusion.eps_from_x0(x_t, x, *TWO_STEPS.at(1, x)) for x in (x_0, x_0_hat))
    assert shown(term / (eps - eps_hat).square().item(), 2)
    black = diffusion.Schedule(torch.tensor([0.9, 0.0001], dtype=torch.float64))
    pixel = diffusion.prior_term(black, -number(1.0)).item()
    prior = kl_divergence(Normal(-0.01, math.sqrt(1 - 0.0001)), Normal(0.0, 1.0)).item()
    assert pixel == pytest.approx(prior, rel=0.01)
    assert shown(pixel, 5)
    assert shown(784 * pixel)
    fine = diffusion.Schedule(torch.tensor([1 / (1 + 0.01**2), 0.5], dtype=torch.float64))
    nats = diffusion.bound_terms(fine, number(0.1), number(0.1), torch.tensor([0])).item()
    assert shown(math.exp(-nats))
    assert shown(nats)
    assert shown(nats / math.log(2))
    assert shown((1 / 255) / 0.01)
    values = (-1 + 2 * torch.arange(256).double() / 255)[:, None]
    first = torch.zeros(256, dtype=torch.long)
    every = diffusion.bound_terms(fine, values, torch.full_like(values, 0.013), first)
    assert every.neg().exp().sum().item() == pytest.approx(1)


def test_what_equal_errors_at_all_levels_cost():
    """notes/04 section 9.1: why a network that says the whole picture has a poor bound."""
    schedule = diffusion.Schedule(diffusion.make_schedule("sigmoid", 1000))
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    assert f"{snr[0].item():,.0f} at $t = 0$" in read(DIFFUSION)
    assert shown(1 / snr[0].item())
    t = torch.arange(1, 1000)
    for error, places in ((0.0044, 1), (1 / snr[0].item(), 1)):
        off = torch.full((len(t), 1), math.sqrt(error), dtype=torch.float64)
        nats = diffusion.bound_terms(schedule, torch.zeros_like(off), off, t).sum().item()
        assert nats == pytest.approx(0.5 * (snr[0] - snr[-1]).item() * error)
        assert f"{nats / math.log(2):.{places}f} bits" in read(DIFFUSION)
    assert shown(math.sqrt(0.0044) * 255 / 2, 1)  # in steps of grey; -1 to 1 are 255 of them


def test_conversions_and_weights_by_hand():
    x_0, eps = number(1.0), number(-0.5)
    signal, noise = TWO_STEPS.at(1, x_0)
    x_t = diffusion.q_sample(TWO_STEPS, x_0, 1, eps)
    v = diffusion.v_from(x_0, eps, signal, noise)
    assert shown(x_t.item())
    assert shown(v.item())
    angle = math.acos(signal.item())
    velocity = math.cos(angle) * -0.5 - math.sin(angle) * 1.0
    assert v.item() == pytest.approx(velocity)
    snr = torch.tensor([0.9 / 0.1, 0.72 / 0.28, 0.1 / 0.9], dtype=torch.float64)
    for predict, to_x0, said_so in (
        ("eps", snr, "eps 0.5556, 1, 1"),
        ("x0", torch.ones(3), "$x_0$ 5, 2.5714, 0.1111"),
        ("v", snr + 1, "$v$ 0.5, 0.72, 0.1"),
    ):
        weight = diffusion.loss_weight(snr, predict, "min-snr")
        torch.testing.assert_close(weight * to_x0, snr.clamp(max=5))
        assert said_so in read(DIFFUSION)
        assert [float(w) for w in said_so.split(" ", 1)[1].split(", ")] == pytest.approx(
            weight.tolist(), abs=1e-4
        )
    high = torch.tensor(99.0)
    assert diffusion.loss_weight(high, "v", "min-snr").item() == pytest.approx(0.05)


def test_single_steps_of_the_samplers_by_hand():
    x_t, eps = number(0.5), number(0.2)

    def told_eps(x, t):
        return diffusion.x0_from_eps(x, eps, *TWO_STEPS.at(t, x)), eps

    x_s, x_0 = next(diffusion.ddim(told_eps, TWO_STEPS, x_t, (1, 0)))
    assert shown(x_0.item())
    assert shown(x_s.item())
    assert shown(math.sqrt(0.9) * x_0.item() + math.sqrt(0.28) * 0.2)  # the old weight of the noise
    mean, variance = diffusion.posterior(TWO_STEPS, x_0, x_t, 1, 0)
    by_eps = (0.5 - 0.2 / math.sqrt(0.28) * 0.2) / math.sqrt(0.8)
    assert mean.item() == pytest.approx(by_eps)
    assert shown(mean.item())
    assert shown(variance.sqrt().item())
    # data N(0, 1) from sigma = 2 to 1 in units of the data: Euler and Heun
    slope = 2 / 5
    euler = 1 - slope
    heun = 1 - (slope + euler / 2) / 2
    exact = math.sqrt(2 / 5)
    assert [round(v, 9) for v in (euler, heun)] == [0.6, 0.65]
    assert shown(exact)
    assert shown(euler - exact)
    assert shown(heun - exact)
    # from 4 by 2 to 1
    sigma = torch.tensor([1.0, 2.0, 4.0]).double()
    levels = diffusion.Schedule(1 / (1 + sigma.square()))
    start = levels.at(2, number(1.0))[0] * math.sqrt(17)
    path = list(diffusion.dpm_solver(gaussian(levels, 1.0), levels, start, (2, 1, 0)))
    u = [(x / levels.at(t, x)[0]).item() for (x, _), t in zip(path, (1, 0), strict=True)]
    first, second = (x_0.item() for _, x_0 in path)
    assert all(map(shown, (math.sqrt(17), first, u[0], second, u[1], math.sqrt(5), math.sqrt(2))))
    assert shown(second + 0.5 * (second - first))
    assert shown(0.5 * u[0] + 0.5 * second)


def test_gaussian_data_make_too_narrow_samples_with_few_steps():
    """The table of notes/04 section 6.5, and eqs. (4.78) and (4.81)."""
    s, rows = 0.5, read(DIFFUSION)
    schedule = diffusion.Schedule(diffusion.make_schedule("cosine", 1000))
    denoise = gaussian(schedule, s)
    for steps in (5, 10, 20, 50, 100):
        times = schedule.times(steps)
        variance = 1.0
        for t, r in itertools.pairwise(times):  # the posterior is linear: mean slope and variance
            x_0, _ = denoise(number(1.0), t)
            mean, added = diffusion.posterior(schedule, x_0, number(1.0), t, r)
            variance = mean.item() ** 2 * variance + added.item()
        widths = [math.sqrt(variance)] + [
            diffusion.last(sampler(denoise, schedule, number(1.0), times)).item()
            for sampler in (diffusion.ddim, diffusion.heun, diffusion.dpm_solver)
        ]
        dense = diffusion.Config(sampler="dpm++", sampling_steps=steps)
        path = diffusion.dpm_solver(
            denoise, schedule, number(1.0), diffusion.stops(schedule, dense)
        )
        widths.append(diffusion.last(path).item())
        row = " | ".join(f"{w / s:.4f}" for w in widths)
        assert f"| {steps} | {row} |" in rows
        factor = schedule.at(times[0], number(1.0))[0].item() ** -1
        sigma = [(b / a).item() for a, b in (schedule.at(t, number(1.0)) for t in times)]
        for now, then in itertools.pairwise(sigma):
            step = (s**2 + now * then) / (s**2 + now**2)
            assert step <= math.sqrt((s**2 + then**2) / (s**2 + now**2)) + 1e-12
            factor *= step
        assert widths[1] == pytest.approx(factor)


def test_gaussian_data_have_a_bound_in_closed_form():
    """notes/04 eqs. (4.76), (4.79) and (4.80)."""
    s = 0.5
    for bar in (0.9, 0.1):
        c = bar * s**2 + 1 - bar
        assert shown(bar * s**2 / c)
    assert shown(s**2 / (1 + 9 * s**2))
    entropy = Normal(0.0, s).entropy().item()
    assert shown(entropy)
    for steps in (100, 1000, 4000):
        schedule = diffusion.Schedule(diffusion.make_schedule("geometric", steps))
        snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
        left = s**2 / (1 + s**2 * snr)  # the variance of x_0 given x_t
        t = torch.arange(1, steps)
        middle = diffusion.bound_terms(
            schedule, torch.zeros(steps - 1, 1).double(), left[1:, None].sqrt(), t
        ).sum()
        prior = diffusion.prior_term(schedule, number(s))  # E[x_0^2] = s^2
        pixels = Normal(0.0, left[0].sqrt()).entropy()
        assert shown((prior + middle + pixels).item() - entropy)
        limit = 0.5 * math.log(1 + s**2 * snr[0].item())
        assert limit + pixels.item() == pytest.approx(entropy)
        assert middle.item() > limit


def mixture(u, sigma):
    """Density, score and distribution function of x_0 + sigma eps, x_0 = -1 or 1, at u."""
    left, right = norm.pdf(u, -1, sigma), norm.pdf(u, 1, sigma)
    density = 0.5 * (left + right)
    score = 0.5 * (left * (-1 - u) + right * (1 - u)) / sigma**2 / density
    return density, score, 0.5 * (norm.cdf(u, -1, sigma) + norm.cdf(u, 1, sigma))


def test_the_ode_carries_every_quantile_and_its_density():
    """notes/04 eqs. (4.41), (4.62), (4.70): du / dsigma = -sigma score, not twice that."""

    def slope(sigma, state, half=0.5):
        u, h = state[0], 1e-4
        v = [-2 * half * sigma * mixture(w, sigma)[1] for w in (u - h, u, u + h)]
        return [v[1], -(v[2] - v[0]) / (2 * h)]  # and d log p = -div v

    how = {"rtol": 1e-9, "atol": 1e-9}
    for u in (-1.3, 0.05, 0.7):
        start = mixture(u, 0.4)
        ode = solve_ivp(slope, (0.4, 3.0), [u, math.log(start[0])], **how)
        end = mixture(ode.y[0, -1], 3.0)
        assert end[2] == pytest.approx(start[2], abs=1e-6)
        assert math.log(end[0]) == pytest.approx(ode.y[1, -1], abs=1e-4)
    wrong = solve_ivp(partial(slope, half=1.0), (0.4, 3.0), [0.7, 0.0], **how)
    assert abs(mixture(wrong.y[0, -1], 3.0)[2] - mixture(0.7, 0.4)[2]) > 0.01
    assert shown(math.exp(-1))


def test_score_matching_with_noise_is_score_matching():
    """notes/04 eqs. (4.50) and (4.52) for two points and any s, by quadrature."""
    sigma = 0.8

    def over(f):  # E f(u)
        return quad(lambda u: mixture(u, sigma)[0] * f(u), -9, 9)[0]

    def jointly(f):  # E f(u, x_0)
        return sum(
            quad(lambda u, x=x: 0.5 * norm.pdf(u, x, sigma) * f(u, x), -9, 9)[0] for x in (-1, 1)
        )

    def target(u, x):
        return (x - u) / sigma**2

    def score(u):
        return mixture(u, sigma)[1]

    constant = jointly(lambda u, x: target(u, x) ** 2) - over(lambda u: score(u) ** 2)
    for s, ds in ((math.sin, math.cos), (lambda u: -u, lambda u: -1.0)):
        explicit = over(lambda u, s=s: (s(u) - score(u)) ** 2)
        denoising = jointly(lambda u, x, s=s: (s(u) - target(u, x)) ** 2)
        assert explicit == pytest.approx(denoising - constant, abs=1e-6)
        implicit = over(lambda u, s=s, ds=ds: 0.5 * s(u) ** 2 + ds(u))
        rest = 0.5 * over(lambda u: score(u) ** 2)
        assert 0.5 * explicit == pytest.approx(implicit + rest, abs=1e-6)
    for u in (-0.4, 0.9):
        mean = u + sigma**2 * score(u)
        assert mean == pytest.approx(math.tanh(u / sigma**2))  # eq. (4.82) for two points
    assert shown(math.sqrt(0.28) * 0.5)
    v = 0.0
    for _ in range(500):
        v = (1 - 0.1) ** 2 * v + 2 * 0.1
    assert shown(v)


def test_guidance_overshoots_and_narrows():
    """The table of notes/04 section 8.3, by integrating the guided ODE."""
    rows = read(DIFFUSION).partition("### 8.3 ")[2]
    far = 1e4
    for w in (1, 2, 3, 5):

        def slope(r, u, w=w):  # r = log sigma
            s2 = math.exp(2 * r)
            conditional, unconditional = s2 * (u - 1) / (1 + s2), s2 * u / (2 + s2)
            return diffusion.guided(conditional, unconditional, w)

        ends = [
            solve_ivp(slope, (math.log(far), -12), [u], rtol=1e-9, atol=1e-10).y[0, -1]
            for u in (0.0, far)
        ]
        mean, variance = ends[0], (ends[1] - ends[0]) ** 2
        tilted = 2 * w / (w + 1), 2 / (w + 1)
        four = r" \| ".join([r"([\d.]+)"] * 4)
        found = next(re.finditer(rf"^\| {w} \| {four} \|$", rows, flags=re.MULTILINE)).groups()
        found = [float(cell) for cell in found]
        assert found == pytest.approx([mean, variance, *tilted], abs=2e-4)
    assert diffusion.guided(0.5, 0.2, 3.0) == pytest.approx(1.1)
    ahead = partial(density_of, v=1.0)
    power = [
        quad(lambda x, k=k: x**k * ahead(x, 1.0) ** 3 / density_of(x, 0.0, 2.0) ** 2, -9, 9)
        for k in range(3)
    ]
    assert power[1][0] / power[0][0] == pytest.approx(1.5)
    assert power[2][0] / power[0][0] - 1.5**2 == pytest.approx(0.5)


def test_averages_walks_and_answers():
    assert shown(math.log(2) / -math.log(diffusion.Config().ema), 0)
    assert f"{math.log(2) / -math.log(0.9999):,.0f}" in read(DIFFUSION)
    assert shown(0.9999**3000)
    assert shown(math.sqrt(784 / 2), 2)
    assert shown(math.sin(math.pi / 4))
    # questions 1, 5, 9, 10
    assert shown(0.36 / 0.64)
    assert shown(math.sqrt(0.64 / 0.36))
    one = diffusion.Schedule(torch.tensor([0.36], dtype=torch.float64))
    x_0, eps = gaussian(one, 1.0)(number(2.0), 0)
    assert (x_0.item(), eps.item()) == pytest.approx((1.2, 1.6))
    assert diffusion.v_from(x_0, eps, *one.at(0, x_0)).item() == pytest.approx(0, abs=1e-12)
    assert shown(2 / math.sqrt(10))
    assert shown(math.sqrt(0.1))
    assert shown(math.sqrt(1 + 10.05))
    # question 14
    j = torch.tensor([[1.0, 3.0], [1.0, 2.0]])
    signs = [torch.tensor(z) for z in itertools.product((-1.0, 1.0), repeat=2)]
    values = [(z @ j @ z).item() for z in signs]
    assert sorted(set(values)) == [-1, 7]
    assert np.mean(values) == j.trace().item() == 3


def test_flow_matching_is_a_member_of_the_family():
    """notes/04 section 16: its error is that of the data times (1 + sqrt(snr))^2."""
    noise, data, guess, r = 0.3, -0.8, 0.1, 0.35
    x = (1 - r) * noise + r * data
    snr = (r / (1 - r)) ** 2
    velocity, said_velocity = data - noise, (guess - x) / (1 - r)
    assert (velocity - said_velocity) ** 2 == pytest.approx(
        (1 + math.sqrt(snr)) ** 2 * (data - guess) ** 2
    )


def test_losses_that_need_no_training():
    """notes/04 section 14: the network that says 0, and the best linear one, on test digits."""
    data = utils.load_images("mnist5k")
    train, test = (2 * x.flatten(1).double() - 1 for x in (data.train, data.test))
    square = test.square().mean().item()
    assert shown(square)
    assert shown((test - train.mean(0)).square().mean().item())
    bar = diffusion.make_schedule("sigmoid", 1000)[:, None]
    assert shown((bar + (1 - bar) * square).mean().item())
    values, axes = torch.linalg.eigh(train.T.cov(correction=0))
    values = values.clamp(min=0)
    energy = ((test - train.mean(0)) @ axes).square().mean(0)  # of the test digits, along each axis
    slope = values / (bar * values + 1 - bar)
    error = (1 - bar * slope).square() * energy + slope.square() * bar * (1 - bar)  # of x_0
    snr = bar / (1 - bar)
    assert shown(error.mean().item())
    assert shown(((snr + 1) * error).mean().item())
    assert shown((snr * error).mean().item())
    schedule = diffusion.Schedule(bar[:, 0])  # and the formula for the error, by one long draw
    t, axis = 300, 783
    x_0 = math.sqrt(energy[axis].item()) * torch.ones(400_000, 1, dtype=torch.float64)
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_t = diffusion.q_sample(schedule, x_0, t, noise)
    x_0_hat, _ = gaussian(schedule, math.sqrt(values[axis].item()))(x_t, t)
    assert (x_0_hat - x_0).square().mean().item() == pytest.approx(error[t, axis].item(), rel=0.01)


def test_the_two_losses_of_the_chapter_are_one():
    """notes/04 section 7.2: sigma^2 |score + eps / sigma|^2 is the squared error of the noise."""
    torch.manual_seed(0)
    schedule = diffusion.Schedule(diffusion.make_schedule("geometric", 20))
    model = diffusion.Diffusion(diffusion.PlaneNet(16, 20), schedule, "eps")
    x_0 = torch.randn(50, 2)
    both = []
    for loss in (diffusion.diffusion_loss, lambda m, x, y: diffusion.score_matching_loss(m, x)):
        torch.manual_seed(1)
        both.append(loss(model, x_0, None)[0])
    torch.testing.assert_close(*both, rtol=1e-3, atol=1e-4)


# --- Note 5, recomputed

FLOWS = ROOT / "notes" / "05_normalizing_flows_guide.md"
written = partial(stated, note=FLOWS)


def jacobian_of(f, x):
    """The Jacobian of f at the point x (D,), by autograd."""
    return torch.autograd.functional.jacobian(f, torch.as_tensor(x, dtype=torch.float64))


def test_flow_on_the_line():
    """notes/05 eqs. (5.3) and (5.4): an arsinh, and the flow of an exponential density."""
    z = math.asinh(2.0)
    slope = jacobian_of(torch.asinh, [2.0]).item()
    assert all(map(written, (z, slope, norm.pdf(z), norm.pdf(z) * slope)))
    whole = quad(lambda x: norm.pdf(math.asinh(x)) / math.sqrt(1 + x * x), -1e3, 1e3, points=(0,))
    assert whole[0] == pytest.approx(1, abs=1e-6)
    without = quad(lambda z: norm.pdf(z) * math.cosh(z), -12, 12)[0]
    assert without == pytest.approx(math.sqrt(math.e))
    assert written(without)
    share = quad(lambda x: math.exp(-x), 0, 1)[0]
    z, h = norm.ppf(share), 1e-5
    slope = (norm.ppf(-math.expm1(-1 - h)) - norm.ppf(-math.expm1(-1 + h))) / (2 * h)
    assert norm.logpdf(z) + math.log(slope) == pytest.approx(-1, abs=1e-6)
    assert all(map(written, (share, z, norm.pdf(z), norm.logpdf(z), math.log(slope), math.exp(-1))))


def test_flow_of_two_layers_by_hand():
    """notes/05 eqs. (5.7) to (5.9) and (5.27), by the Jacobian of the whole."""

    def coupling(h):
        return torch.stack([h[0], (0.3 * h[0]).exp() * h[1] - h[0]])

    x = torch.tensor([2.0, 1.0], dtype=torch.float64)
    z = coupling(0.5 * x)
    base = Normal(0.0, 1.0).log_prob(z).sum().item()
    log_det = jacobian_of(lambda x: coupling(0.5 * x), x).slogdet().logabsdet.item()
    assert log_det == pytest.approx(2 * math.log(0.5) + 0.3)
    assert all(map(written, (2 * math.log(0.5), z[1].item(), base, base + log_det)))
    assert (z[1].item() + 1) * math.exp(-0.3) == pytest.approx(0.5)
    inside = jacobian_of(coupling, 0.5 * x)
    assert written(inside[1, 0].item())
    assert written(inside.det().item())
    for a, loss in ((1.0, 2.9189), (0.25, 2.4302), (0.5, 2.1121)):  # eq. (5.10), z = a x
        assert -norm.expect(lambda x, a=a: norm.logpdf(a * x), scale=2) - math.log(a) == (
            pytest.approx(loss, abs=1e-4)
        )
        assert written(loss)
    assert Normal(0.0, 2.0).entropy().item() == pytest.approx(2.1121, abs=1e-4)
    assert written(math.log(2 * math.pi) / 2)
    assert f"{math.exp(20) / 1e8:.1f} \\cdot 10^8" in read(FLOWS)
    assert f"{784**3 / 3 / 1e8:.1f} \\cdot 10^8" in read(FLOWS)
    assert f"by {math.exp(5):.0f} and its term in the loss by {math.exp(10):,.0f}" in read(FLOWS)


def test_flow_layers_of_low_rank():
    """notes/05 eqs. (5.17) to (5.23), and the inverse by solving for one number."""
    g = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 5, generator=g, dtype=torch.float64)
    lemma = (torch.eye(5, dtype=torch.float64) + torch.outer(u, v)).det()
    assert lemma.item() == pytest.approx(1 + (u @ v).item())
    u, w = torch.tensor([[0.5, 1.0], [1.0, -1.0]], dtype=torch.float64)

    def planar(x):
        return x + u * torch.tanh(x @ w)

    x = torch.tensor([1.0, 0.5], dtype=torch.float64)
    z, determinant = planar(x), jacobian_of(planar, x).det()
    height = math.tanh(0.5)
    numbers = (height, *z.tolist(), 1 - height**2, determinant.item(), determinant.log().item())
    assert all(map(written, numbers))
    goal = (w @ z).item()
    assert written(goal)
    assert goal == pytest.approx(0.5 - 0.5 * math.tanh(0.5))
    assert abs(goal - 0.5) < abs((w @ u).item())  # the root lies where bisection looks for it
    assert written(-1 + math.log1p(math.exp(-3)))
    along = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    for wu, folds in ((-1.0, False), (-1.2, True)):
        assert bool(((along + wu * along.tanh()).diff() < 0).any()) is folds
    u = torch.randn(5, generator=g, dtype=torch.float64) - 3 * v
    wu = (v @ u).item()
    fixed = u + (math.log1p(math.exp(wu)) - 1 - wu) * v / (v @ v)
    assert (v @ fixed).item() == pytest.approx(math.log1p(math.exp(wu)) - 1)
    u, v = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]])  # question 3
    matrix = torch.eye(3) + torch.outer(u, v)
    assert matrix.det().item() == pytest.approx(3)
    torch.testing.assert_close(matrix.inverse(), torch.eye(3) - torch.outer(u, v) / 3)


def test_flow_layers_that_are_linear():
    """notes/05 eqs. (5.14), (5.15), (5.24) and (5.25)."""
    weight = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    assert written(weight.slogdet().logabsdet.item())
    picture = torch.randn(2 * 49, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = jacobian_of(lambda x: (weight @ x.view(2, 49)).flatten(), picture)
    assert written(whole.slogdet().logabsdet.item(), 1)
    lower = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
    upper = torch.tensor([[2.0, 1.0], [0.0, 1.5]], dtype=torch.float64)
    torch.testing.assert_close(lower @ upper, weight)
    values = torch.tensor([1.0, 3.0, 5.0, 7.0])
    scale = 1 / values.std()
    assert all(map(written, (scale.log().item(), -4 * scale.item(), 3 * scale.item())))
    assert written(values.std().item())
    scales = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)  # question 4
    layer = jacobian_of(lambda x: (scales.exp()[:, None] * x.view(3, 64)).flatten(), [0.1] * 192)
    assert written(layer.slogdet().logabsdet.item(), 1)


def test_flow_of_one_volume_has_a_floor():
    """notes/05 eq. (5.32): the densest area of a Gaussian, laid on a uniform density."""

    def cross_entropy(m, area=8.0):
        return quad(lambda v: v / m + math.log(m), 0, area)[0] / area

    widths = np.linspace(1, 16, 1501)
    best = min(widths, key=cross_entropy)
    assert best == pytest.approx(8 / 2)
    floor = cross_entropy(best) - math.log(8)
    assert written(floor)
    sigma = math.sqrt(best / (2 * math.pi))  # and m is what makes a Gaussian of the plane of it
    radius = math.sqrt(3.0 / math.pi)  # of the disc of area 3
    height = norm.pdf(radius, scale=sigma) * norm.pdf(0, scale=sigma)
    assert -math.log(height) == pytest.approx(3.0 / best + math.log(best))
    assert f"stuck near {floor:.2f} nats" in read(FLOWS)


def test_flow_masks_and_patterns():
    """notes/05 eqs. (5.30), (5.37) and (5.38), and by the Jacobian of a masked network."""
    eye, one, none = np.eye(3), np.ones((3, 3)), np.zeros((3, 3))
    a, b = np.block([[eye, none], [one, eye]]), np.block([[eye, one], [none, eye]])
    assert (b @ a > 0).tolist() == np.block([[one, one], [one, eye]]).astype(bool).tolist()
    assert (a @ b @ a > 0).all()
    inputs, hidden = torch.tensor([1, 2, 3]), torch.tensor([1, 2, 2, 1])
    masks = (hidden[:, None] >= inputs).double(), (inputs[:, None] > hidden).double()
    product = masks[1] @ masks[0]
    for matrix in (*masks, product):
        rows = r" \cr ".join(" & ".join(f"{v:.0f}" for v in row) for row in matrix.tolist())
        assert rf"\begin{{pmatrix}} {rows} \end{{pmatrix}}" in read(FLOWS)
    g = torch.Generator().manual_seed(0)
    weights = [mask * torch.randn(mask.shape, generator=g).double() for mask in masks]
    jacobian = jacobian_of(lambda x: weights[1] @ torch.tanh(weights[0] @ x), [0.3, -0.7, 0.2])
    assert (jacobian != 0).tolist() == (product != 0).tolist()
    order = torch.tensor([2, 3, 1])  # question 6
    assert (order[:, None] > order).int().tolist() == [[0, 0, 1], [1, 0, 1], [0, 0, 0]]
    assert f"{64 * 64 * 3:,} times" in read(FLOWS)


def test_flow_that_takes_coordinates_in_turn():
    """notes/05 eqs. (5.33) and (5.34), and the banana in the wrong order, by quadrature."""

    def maf(x):
        return torch.stack([x[0], (0.2 * x[0]).exp() * x[1] - 0.6 * x[0]])

    x = torch.tensor([1.0, 1.5], dtype=torch.float64)
    z, log_det = maf(x), jacobian_of(maf, x).slogdet().logabsdet
    assert log_det.item() == pytest.approx(0.2)
    assert written(z[1].item())
    assert written((Normal(0.0, 1.0).log_prob(z).sum() + log_det).item())
    conditional = Normal(math.exp(-0.2) * 0.6, math.exp(-0.2)).log_prob(x[1])
    both = Normal(0.0, 1.0).log_prob(x[0]) + conditional
    assert both.item() == pytest.approx((Normal(0.0, 1.0).log_prob(z).sum() + log_det).item())
    x, y = np.linspace(-6, 6, 801), np.linspace(-4, 34, 1901)
    joint = norm.pdf(x)[:, None] * norm.pdf(y, x[:, None] ** 2, 0.5) * (x[1] - x[0])
    marginal = joint.sum(0)  # of x_2
    square = (joint * x[:, None] ** 2).sum(0) / np.maximum(marginal, 1e-300)  # of x_1 given x_2
    mass = marginal * (y[1] - y[0])
    variance = (mass * y**2).sum() - (mass * y).sum() ** 2
    constant = 0.5 * math.log(2 * math.pi * math.e)
    cross = 2 * constant + 0.5 * math.log(variance) + (mass * 0.5 * np.log(square + 1e-300)).sum()
    entropy = 2 * constant + math.log(0.5)
    assert written(cross - entropy)


def spline_bin(x, w=2.0, h=1.0, start=1.0, end=0.25):
    """One bin of notes/05 eq. (5.44), from (0, 0) to (w, h), as h P / (P + R)."""
    s, t = h / w, x / w
    p, r = s * t**2 + start * t * (1 - t), s * (1 - t) ** 2 + end * t * (1 - t)
    return h * p / (p + r)


def test_flow_of_splines_by_hand():
    """notes/05 eqs. (5.44) to (5.48): value, slope by autograd, the inverse by a search."""
    x = torch.tensor([1.0], dtype=torch.float64)
    y, slope = spline_bin(x).item(), jacobian_of(spline_bin, x).item()
    assert all(map(written, (y, slope, math.log(slope))))
    a, b, c = 0.5 - 1.0 + y * 0.25, 1.0 - y * 0.25, -0.5 * y
    assert all(map(written, (a, b, c)))
    assert sorted(np.roots([a, b, c])) == pytest.approx([0.5, 2.0])
    assert b * b - 4 * a * c == pytest.approx(0.25)
    assert 2 * c / (-b - math.sqrt(0.25)) == pytest.approx(0.5)
    rng = np.random.default_rng(0)
    for _ in range(50):
        w, h, start, end = rng.uniform(0.01, 4, 4)
        s, k = h / w, start + end - 2 * h / w
        x = torch.tensor(rng.uniform(0, w, 1))
        t, y = x.item() / w, spline_bin(x, w, h, start, end).item()
        slope = jacobian_of(lambda x, p=(w, h, start, end): spline_bin(x, *p), x).item()
        below = (s + k * t * (1 - t)) ** 2
        above = s**2 * (end * t**2 + 2 * s * t * (1 - t) + start * (1 - t) ** 2)
        assert slope == pytest.approx(above / below)
        assert slope > 0
        a, b, c = h * (s - start) + y * k, h * start - y * k, -s * y
        assert 2 * c / (-b - math.sqrt(b * b - 4 * a * c)) == pytest.approx(t)


def test_flow_on_discrete_data():
    """notes/05 eqs. (5.50) to (5.55): spikes, and the toy with the density v / 2 on [0, 2)."""
    for sigma in (0.1, 0.01, 0.001):
        assert written(norm.logpdf(0, scale=sigma) - math.log(2))
    assert written(math.log(10))
    for k in (0, 1):
        exact = math.log(quad(lambda v: v / 2, k, k + 1)[0])
        bound = quad(lambda v: math.log(v / 2), k, k + 1)[0]
        assert written(exact)
        assert written(bound)
        gap = quad(lambda u, p=exact, k=k: p - math.log((k + u) / 2), 0, 1)[0]  # eq. (5.53)
        assert gap == pytest.approx(exact - bound)
        assert written(exact - bound)
    spread = quad(lambda s: math.log(s) * (s if s < 1 else 2 - s), 0, 2, points=(1,))[0]
    two = math.log(1 / 4) + spread  # the sum of two draws has a triangular density
    assert two == pytest.approx(-1.5)
    assert written(math.log(1 / 4) - two)
    learned = quad(lambda u: 2 * u * (math.log(u / 2) - math.log(2 * u)), 0, 1)[0]
    assert learned == pytest.approx(math.log(1 / 4))  # q(u) = 2 u closes the gap


@cache
def logits_of_pixels(alpha=1e-6):
    """Means over the noise of l, l^2 and log v + log(1 - v) for each pixel value, (256,) each."""
    w = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    u = w**4 * (35 - 84 * w + 70 * w**2 - 20 * w**3)  # dense at both ends, where logs are steep
    weight = 140 * (w * (1 - w)) ** 3 / 200
    v = alpha + (1 - 2 * alpha) * (torch.arange(256)[:, None] + u) / 256
    logit = v.log() - torch.log1p(-v)
    return [(f * weight).sum(1) for f in (logit, logit**2, v.log() + torch.log1p(-v))]


def test_flow_and_the_units_of_pictures():
    """notes/05 eqs. (5.56) to (5.60)."""
    for alpha, lam in ((1e-6, "-5.8928"), (0.05, "-2.8681")):
        y = torch.tensor([0.5 / 256], dtype=torch.float64)
        slope = jacobian_of(lambda y, a=alpha: torch.logit(a + (1 - 2 * a) * y), y).item()
        assert written(math.log(slope))
        assert lam in read(FLOWS)  # of all of MNIST's test digits, which need a download
    mean = logits_of_pixels()[2]
    ends = 1e-6 + (1 - 2e-6) * torch.arange(257, dtype=torch.float64) / 256

    def mean_log(v):
        return (v[1:] * v[1:].log() - v[:-1] * v[:-1].log()) / v.diff() - 1

    torch.testing.assert_close(mean, mean_log(ends) + mean_log(1 - ends), atol=1e-6, rtol=1e-6)
    small = mean[(255 * utils.load_images("mnist5k").test).round().long()].mean().item()
    assert written(small)
    nats = utils.bits_per_dim(1366.2, 784)
    assert written(nats)
    assert written(-5.8928 / math.log(2), 4)
    assert written(8 + nats - (math.log(1 - 2e-6) + 5.8928) / math.log(2))
    assert written(8 + nats - (math.log(1 - 2e-6) - small) / math.log(2))
    assert 8 + nats - (math.log(0.9) + 2.8681) / math.log(2) == pytest.approx(6.5282, abs=1e-3)
    assert written(6.5282)
    assert written(8 - utils.bits_per_dim(700.0, 784))  # question 9


def test_flow_pays_for_black_pixels():
    """notes/05 eq. (5.61): the best Gaussian for an exponential and for a logistic density."""
    exponential, logistic = torch.distributions.Exponential(1.0), 2.0
    gap = Normal(0.0, exponential.stddev).entropy() - exponential.entropy()
    direct = quad(lambda r: math.exp(-r) * (-r - norm.logpdf(r, 1, 1)), 0, 60)[0]
    assert direct == pytest.approx(gap.item(), abs=1e-6)
    assert written(direct)
    assert written(direct / math.log(2))
    assert written(784 * direct, 1)
    assert written(Normal(0.0, math.pi / math.sqrt(3)).entropy().item() - logistic)
    black = (utils.load_images("mnist5k").test < 0.5 / 255).double().mean().item()
    assert black == pytest.approx(0.807, abs=0.001)


def test_flow_anchors_without_training():
    """The table of notes/05 section 11.2: Gaussians in logit space, one table of the values."""
    data = utils.load_images("mnist5k")
    train, test = ((255 * x.flatten(1)).round().long() for x in (data.train, data.test))
    counts, fresh = (  # how often each pixel has each value, (256, 784)
        torch.zeros(256, 784, dtype=torch.float64).scatter_add_(0, k, torch.ones(k.shape).double())
        for k in (train, test)
    )
    mean, square, both = (m[:, None] for m in logits_of_pixels())
    lam = (fresh * both).sum() / fresh.sum()
    for old in (counts.sum(1, keepdim=True), counts):
        seen = fresh if old.shape[1] > 1 else fresh.sum(1, keepdim=True)
        m = (old * mean).sum(0) / old.sum(0)
        v = (old * square).sum(0) / old.sum(0) - m**2
        error = (seen * (square - 2 * m * mean + m**2)).sum(0) / seen.sum(0)
        nll = (0.5 * (2 * math.pi * v).log() + error / (2 * v)).mean()
        assert written(8 + (nll - math.log(1 - 2e-6) + lam).item() / math.log(2))
    table = (counts.sum(1) + 1) / (counts.sum() + 256)
    assert written(-(fresh.sum(1) * table.log2()).sum().item() / fresh.sum().item())


def test_flow_and_the_gap_between_two_blobs():
    """notes/05 eqs. (5.64) to (5.66)."""

    def slope(m, s, h=1e-7):  # of the perfect generator at 0, by its distribution function
        mass = 0.5 * (norm.cdf(h, -m, s) + norm.cdf(h, m, s)) - 0.5
        return h / norm.ppf(0.5 + mass)

    assert slope(1, 0.5) == pytest.approx(0.5 * math.exp(2), rel=1e-3)
    assert written(0.25 * math.exp(8), 1)
    assert f"{0.1 * math.exp(50) / 1e20:.1f} \\cdot 10^{{20}}" in read(FLOWS)
    for steep in (1, 5, 10, 50):  # g(z) = steep z leaves the least: the bound is attained
        gap = quad(lambda x, s=steep: norm.pdf(x, scale=s), -1, 1)[0]
        row = f"| {steep} | {gap:.4f} | {-math.log1p(-gap):.4f} |"
        assert row in read(FLOWS)
        assert 1 - 2 * norm.cdf(-2 / (2 * steep)) == pytest.approx(gap)


def test_flow_in_continuous_time():
    """notes/05 eqs. (5.73), (5.75), (5.76), and questions 14 and 15."""
    a = math.log(2)
    end = solve_ivp(lambda r, s: [-a * s[0], -a], (0, 1), [2.0, 0.0], rtol=1e-9, atol=1e-9).y[:, -1]
    assert norm.logpdf(end[0]) + end[1] == pytest.approx(norm.logpdf(2, scale=2))
    assert all(map(written, (norm.logpdf(1), a, norm.logpdf(2, scale=2))))
    signs = [torch.tensor(z) for z in itertools.product((-1.0, 1.0), repeat=2)]
    normal = torch.randn(400_000, 2, generator=torch.Generator().manual_seed(0))
    for j, by_signs in (([[1, 3], [1, 2]], 16), ([[0, -1], [1, 0]], 0), ([[0, 1], [1, 0]], 4)):
        j = torch.tensor(j, dtype=torch.float32)
        s = (j + j.T) / 2
        square = s.square().sum().item()
        assert np.var([(z @ j @ z).item() for z in signs]) == pytest.approx(by_signs)
        assert by_signs == pytest.approx(2 * (square - s.diagonal().square().sum().item()))
        found = ((normal @ j) * normal).sum(1).var().item()
        assert found == pytest.approx(2 * square, rel=0.02, abs=1e-6)
    assert r"$\lVert S \rVert_F^2 = 13$: variance 26" in read(FLOWS)
    step = 1 + 1 + 1 / 2 + 1 / 6 + 1 / 24  # RK4 with a step of 1 for v = x
    assert all(map(written, (step, math.e, math.log(step), math.e / step)))
    total = quad(lambda x: math.e * norm.pdf(step * x), -9, 9)[0]
    assert total == pytest.approx(math.e / step)
    ten = sum(0.1**k / math.factorial(k) for k in range(5)) ** 10
    assert 1e-7 < math.e / ten - 1 < 1e-5
    assert written(10 * math.log(1.1))
    assert written(1.1**10)


def test_flow_likelihoods_and_samples_disagree():
    """notes/05 eqs. (5.78) and (5.79): a diluted model, and one that learned by heart."""
    assert written(math.log(100))
    assert written(utils.bits_per_dim(math.log(100), 784))
    data = utils.load_images("mnist5k")
    train, test = data.train.flatten(1), data.test.flatten(1)
    square = torch.cdist(test, train).square().double()
    nearest = square.min(1)[0].mean().item()
    assert written(nearest, 2)
    assert f"{nearest / (2 * 0.05**2):.0f}$ nats" in read(FLOWS)
    for sigma in (0.05, 0.18):
        log_p = torch.logsumexp(-square / (2 * sigma**2), 1) - math.log(len(train))
        log_p -= 784 * math.log(sigma * math.sqrt(2 * math.pi))
        assert written(8 + utils.bits_per_dim(-log_p.mean().item(), 784))


def test_flow_codes_lie_on_a_shell():
    """notes/05 eqs. (5.80) to (5.84)."""
    low, high = (math.sqrt(chi2(784).ppf(p)) for p in (0.025, 0.975))
    assert written(low, 2)
    assert written(high, 2)
    r = np.linspace(20, 36, 16001)
    weight = np.exp(783 * np.log(r / 28) - (r**2 - 784) / 2)
    mean = (r * weight).sum() / weight.sum()
    spread = math.sqrt(((r - mean) ** 2 * weight).sum() / weight.sum())
    assert spread == pytest.approx(math.sqrt(0.5), abs=1e-3)
    assert written(math.sqrt(0.5))
    assert r[weight.argmax()] == pytest.approx(math.sqrt(783), abs=1e-3)
    assert written(utils.bits_per_dim(392.0, 784))
    assert written(math.sqrt(2 / 784))
    narrow = kl_divergence(Normal(0.0, 0.7), Normal(0.0, 1.0)).item()
    assert written(784 * narrow, 1)
    assert written(28 * 0.7, 1)
    assert written(math.sqrt(784 / 2), 2)  # the middle of two orthogonal codes
    assert round((28 - 28 * 0.7) / math.sqrt(0.5)) == 12
    for variance, shift, said_so in ((0.5, 0.0, "+196"), (0.5, 0.3, "+160.7")):
        other = norm.expect(norm.logpdf, loc=shift, scale=math.sqrt(variance))
        gain = 784 * (other - norm.expect(norm.logpdf))
        assert f"${said_so}$" in read(FLOWS)
        assert gain == pytest.approx(float(said_so), abs=0.05)
    lost = -784 * (Normal(0.0, 0.7).entropy() - Normal(0.0, 1.0).entropy()).item()
    assert f"-{lost:.1f}$ nats" in read(FLOWS)  # question 17
    assert written(utils.bits_per_dim(lost, 784))


def test_flow_answers():
    z = 3 * 3.0 - 6
    assert written(norm.logpdf(z))
    assert written(norm.logpdf(z) + math.log(3))
    assert norm.logpdf(z) + math.log(3) == pytest.approx(norm.logpdf(3, 2, 1 / 3))
    for sign in (1, -1):  # question 2
        assert written(norm.logpdf([1, -1]).sum() + sign * (0.7 - 0.2 + 0 + 1.1))
    assert written(144 * 0.010, 2)
    assert written(1.1 * 784 / 8, 1)


# --- The worked examples of notes/07, computed again by other means

ENERGIES = ROOT / "notes" / "07_energy_based_models_guide.md"
printed = partial(stated, note=ENERGIES)
PAIRS = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2)), dtype=torch.float64)


def row_of(*cells):
    """A row of a table of notes/07 as it must stand there; fails if it does not."""
    row = "| " + " | ".join(cells) + " |"
    assert row in read(ENERGIES), f"no such row: {row}"
    return True


def minus(value, places=4):
    """A number as tables print it: in dollars if it is negative."""
    said = f"{value:.{places}f}"
    return f"${said}$" if said.startswith("-") else said


def three_states(beta):
    """log Z of the energies 0, 1, 3 at the inverse temperature beta."""
    return torch.logsumexp(-beta * torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64), 0)


def test_energies_of_three_states():
    """notes/07 section 2: the table from log Z alone, by its derivatives."""
    for t in (0.5, 1.0, 2.0):
        beta = torch.tensor(1 / t, dtype=torch.float64, requires_grad=True)
        log_z = three_states(beta)
        (slope,) = torch.autograd.grad(log_z, beta, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, beta)
        p = [math.exp(-e / t - log_z.item()) for e in (0, 1, 3)]
        mean, free = -slope.item(), -t * log_z.item()
        assert entropy_of(p) == pytest.approx((mean - free) / t)
        listed = ", ".join(f"{q:.4f}" for q in p)
        cells = (f"{math.exp(log_z.item()):.4f}", listed, f"{mean:.4f}", f"{entropy_of(p):.4f}")
        assert row_of(f"{t:g}", *cells, minus(free))
        if t == 1:
            assert printed(curvature.item())
    assert printed(math.e)
    assert printed(1 / (1 + math.exp(2)))  # question 1
    assert printed(1 / (1 + math.exp(1)))


def test_energies_of_two_experts():
    """notes/07 eq. (7.2) by quadrature, and question 2."""
    for (a, b, v), (mean, variance) in (((0, 2, 1.0), (1, 0.5)), ((0, 4, 1 / 3), (3, 0.25))):
        moments = [
            quad(lambda x, *s: x ** s[0] * density_of(x, s[1]) * density_of(x, *s[2:]), -8, 12, s)[
                0
            ]
            for s in ((k, a, b, v) for k in range(3))
        ]
        assert moments[1] / moments[0] == pytest.approx(mean)
        assert moments[2] / moments[0] - mean**2 == pytest.approx(variance, abs=1e-5)
        if b == 2:
            assert printed(moments[0])
    assert r"= 2 (x - 3)^2 + 6$. So $\mathcal N(3, \frac 1 4)$" in read(ENERGIES)
    total = quad(lambda x: math.exp(max(0, x) - x * x / 2), -12, 14, points=(0,))[0]
    assert printed(total)  # question 18


def test_energies_and_blind_draws():
    """notes/07 eqs. (7.11) to (7.14), by counting all pictures of ten pixels."""
    on = np.array([k.bit_count() for k in range(2**10)])
    p, q = 0.9**on * 0.1 ** (10 - on), 0.5**10
    rho, low, high = (p**2 / q).sum(), (q * np.log(q / p)).sum(), (p * np.log(p / q)).sum()
    assert printed(rho ** (1 / 10), 2)
    assert f"{rho**2:,.0f}" in read(ENERGIES)
    assert f"$10^{{{784 / 10 * math.log10(rho):.0f}}}$" in read(ENERGIES)
    assert printed(low / 10)
    assert printed(high / 10)
    assert all(printed(low * n / 10, 1) for n in (20, 784))
    assert f"$e^{{{high * 78.4:.1f}}}$" in read(ENERGIES)
    assert f"\\approx 10^{{{784 * math.log10(2):.0f}}}$" in read(ENERGIES)
    rng, off, stated_errors = np.random.default_rng(0), [], []
    for _ in range(20):  # a million draws each; weights relative to Z
        on = rng.binomial(784, 0.5, size=1_000_000)
        log_w = torch.from_numpy(on * math.log(1.8) + (784 - on) * math.log(0.2))
        off.append(torch.logsumexp(log_w, 0).item() - math.log(len(log_w)))
        w = (log_w - log_w.max()).exp()
        stated_errors.append((w.std() / w.mean() / 1000).item())
    assert np.mean(off) == pytest.approx(-265, abs=8)
    assert 5 < np.std(off) < 11
    assert max(stated_errors) <= 1
    assert on.max() == pytest.approx(460, abs=16)
    assert f"{784 * 0.9:.0f}" == "706"


def test_energies_follow_data_minus_model():
    """notes/07 section 4 by autograd, and what the value of the loss says."""
    e = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    data = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    seen = []
    for _ in range(2):
        nll = data @ e + torch.logsumexp(-e, 0)
        (slope,) = torch.autograd.grad(nll, e)
        p = (-e).softmax(0).detach()
        loss = ((data - p) @ e).item()
        assert loss == pytest.approx(nll.item() - entropy_of(p))
        assert printed(nll.item())
        assert printed(loss)
        seen.append(slope)
        e = (e - slope).detach().requires_grad_()
    assert ", ".join(f"{v:.4f}" for v in seen[0].tolist()) in read(ENERGIES)
    assert ", ".join(f"{v:.4f}" for v in e.add(seen[1]).tolist()) in read(ENERGIES)
    assert printed(entropy_of(data))
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    (-Normal(0.0, theta**-0.5).log_prob(x).mean()).backward()
    assert f"(2.5 - 1) = {theta.grad.item():.2f}$" in read(ENERGIES)


def small_rbm(scale=1.0):
    """weight, visible_bias, hidden_bias of notes/07 section 5.7, times a scale."""
    numbers = ([[2.0, -1.0], [1.0, 1.0]], [-1.0, 0.0], [0.0, -1.0])
    return [scale * torch.tensor(n, dtype=torch.float64) for n in numbers]


def joint_of(w, b, c):
    """exp(-E) of all states, rows v and columns h counted upwards."""
    hidden = torch.tensor(list(itertools.product((0.0, 1.0), repeat=len(c))), dtype=torch.float64)
    terms = [[v @ w @ h + b @ v + c @ h for h in hidden] for v in PAIRS]
    return torch.stack([torch.stack(row) for row in terms]).exp()


def test_energies_of_sixteen_states():
    """notes/07 section 5.7: every number from the joint table, a gradient by autograd."""
    w, b, c = small_rbm()
    joint = joint_of(w, b, c)
    z = joint.sum()
    assert printed(z.item())
    assert printed(z.log().item())
    for k, v in enumerate(PAIRS):
        energies = ", ".join(minus(-f.log().item() + 0.0, 0) for f in joint[k])
        energies = energies.replace("$-0$", "0")
        weights = ", ".join(f"{f:.4f}" if f != 1 else "1" for f in joint[k].tolist())
        inputs = ", ".join(minus(x, 0) for x in (c + v @ w).tolist())
        total = joint[k].sum().item()
        cells = (energies, weights, f"{total:.4f}", inputs, minus(-math.log(total)))
        assert row_of(f"{v[0]:.0f}{v[1]:.0f}", *cells, f"{total / z.item():.4f}")
    assert ", ".join(f"{f:.4f}" for f in joint.sum(0).tolist()) in read(ENERGIES)
    assert printed((1 + math.e) ** 2)
    on = (joint[3, 2] + joint[3, 3]) / joint[3].sum()
    assert printed(on.item())
    w.requires_grad_()
    log_p = joint_of(w, b, c)[3].sum().log() - joint_of(w, b, c).sum().log()
    (slope,) = torch.autograd.grad(log_p, w)
    assert printed(slope[0, 0].item())
    assert printed((on - slope[0, 0]).item())  # the negative phase
    p = joint.sum(1) / z
    assert printed((p[3] / (p[1] + p[3])).item())  # question 5
    assert all(printed(math.log1p(math.exp(x))) for x in (3, -1))


def test_energies_of_labels():
    """notes/07 eqs. (7.30) and (7.31), with the hidden units summed by brute force."""
    w, _, c = small_rbm()
    u, d = torch.tensor([[1.0, 0.0], [-1.0, 1.0]]).double(), torch.tensor([0.0, 0.5]).double()
    v = torch.tensor([1.0, 0.0], dtype=torch.float64)
    each = [sum(math.exp((v @ w + c + u[y]) @ h + d[y]) for h in PAIRS) for y in (0, 1)]
    assert all(printed(math.log(f)) for f in each)
    assert printed(math.log(each[0] / each[1]))
    assert printed(each[0] / sum(each))


def test_energies_one_hidden_unit_raises_one_state():
    """The proof of universality in notes/07 section 5.4."""
    wanted = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)), dtype=torch.float64)
    w, c = 40.0 * (2 * wanted - 1), math.log(5.0) - 40.0 * wanted.sum()
    factor = 1 + (states @ w + c).exp()
    raised = (states == wanted).all(1)
    torch.testing.assert_close(factor, torch.where(raised, 6.0, 1.0).double())
    assert f"{784 * 500 + 784 + 500:,}".replace(",", "{,}") in read(ENERGIES)


def sweep(w, b, c):
    """The matrix T(v -> v') of a Gibbs step, from the joint table alone."""
    joint = joint_of(w, b, c)
    return (joint / joint.sum(1, keepdim=True)) @ (joint / joint.sum(0)).T


def test_energies_and_gibbs_chains():
    """notes/07 section 6.2: stationarity, eigenvalues, distances, and frozen chains."""
    joint, t = joint_of(*small_rbm()), sweep(*small_rbm())
    p = joint.sum(1) / joint.sum()
    torch.testing.assert_close(p @ t, p)
    torch.testing.assert_close(p[:, None] * t, (p[:, None] * t).T)
    assert "$(" + ", ".join(f"{x:.4f}" for x in t[0].tolist()) + ")$" in read(ENERGIES)
    values = sorted(torch.linalg.eigvals(t).abs().tolist(), reverse=True)
    assert all(printed(value) for value in values[1:])
    assert values[1] ** 3 < 0.01 < values[1] ** 2
    q = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    for _ in range(4):
        assert printed(0.5 * (q - p).abs().sum().item())
        q = q @ t
    for omega, steps in ((4, "8.5"), (8, "62.9"), (16, "3,432")):
        on = 1 / (1 + math.exp(-omega / 2))
        keep = on**2 + (1 - on) ** 2
        second = min(np.linalg.eigvals([[keep, 1 - keep], [1 - keep, keep]]).real)
        assert printed(second)
        assert f"{math.log(0.01) / math.log(second):,.{1 if omega < 16 else 0}f}" == steps
        assert steps in read(ENERGIES)
        if omega == 8:
            assert printed(keep)
            assert printed(1 - keep)
        waiting = f"{1 / (1 - keep):,.{1 if omega < 16 else 0}f}"
        assert omega == 4 or waiting in read(ENERGIES)  # question 7


def ends(w, start, steps):
    """Where a chain of the RBM with weights w (2,), no biases, is after some steps, (4,)."""
    t = sweep(w[:, None], torch.zeros(2).double(), torch.zeros(1).double())
    for _ in range(steps):
        start = start @ t
    return start


def directions(w, data, steps):
    """Descent directions at weights w (2,): the likelihood's, and that of CD with some steps."""
    joint = joint_of(w[:, None], torch.zeros(2).double(), torch.zeros(1).double())
    on = joint[:, 1] / joint.sum(1)
    model = joint.sum(1) / joint.sum()
    after = ends(w, data, steps)
    return [((data - q) * on) @ PAIRS for q in (model, after)]


def test_energies_and_the_bias_of_contrastive_divergence():
    """notes/07 section 6.3: the table, where CD rests, and that it is no gradient."""
    data = torch.tensor([0.1, 0.0, 0.0, 0.9], dtype=torch.float64)
    one = torch.ones(2, dtype=torch.float64)
    joint = joint_of(one[:, None], torch.zeros(2).double(), torch.zeros(1).double())
    on, model = joint[:, 1] / joint.sum(1), joint.sum(1) / joint.sum()
    true, wrong = (g.sum().item() for g in directions(one, data, 1))
    nll = torch.zeros((), dtype=torch.float64, requires_grad=True)
    joint = joint_of((one * (1 + nll))[:, None], torch.zeros(2).double(), torch.zeros(1).double())
    (data @ (joint.sum(1) / joint.sum()).log()).backward()
    assert true == pytest.approx(nll.grad.item())

    def mean(q):
        return f"{(q * on * PAIRS.sum(1)).sum().item():.4f}"

    def shares(q):
        return ", ".join(f"{x:.4f}" for x in (q[0], q[1] + q[2], q[3]))

    assert f"| data, $p_0$ | 0.1, 0, 0.9 | {mean(data)} | |" in read(ENERGIES)
    assert row_of("model, $p$", shares(model), mean(model), f"{true:.4f}, the gradient")
    after, name = ends(one, data, 1), "one Gibbs step from the data, $p_1$"
    assert row_of(name, shares(after), mean(after), f"{wrong:.4f}, CD-1")
    assert printed((data @ on).item())

    def rest(which, steps):
        return brentq(lambda a: directions(a * one, data, steps)[which].sum().item(), 0.5, 9)

    best, cd, long = rest(0, 1), rest(1, 1), rest(1, 10)
    assert long == pytest.approx(best, abs=5e-8)
    for a in (best, cd):
        joint = joint_of((a * one)[:, None], torch.zeros(2).double(), torch.zeros(1).double())
        assert printed(a)
        assert printed(-(data @ (joint.sum(1) / joint.sum()).log()).item())
    w = torch.tensor([2.0, -1.0], dtype=torch.float64)
    for which, crossed in ((0, (0.1315, 0.1315)), (1, (0.0883, 0.1325))):
        j = torch.autograd.functional.jacobian(lambda w, k=which: directions(w, data, 1)[k], w)
        assert (j[0, 1].item(), j[1, 0].item()) == pytest.approx(crossed, abs=5e-5)
        assert all(printed(value) for value in crossed)


def test_energies_and_what_contrastive_divergence_drops():
    """notes/07 eqs. (7.39) to (7.41): the divergences by autograd, the dropped term added."""
    data = torch.tensor([0.1, 0.2, 0.1, 0.6], dtype=torch.float64)
    w = torch.tensor([1.5, -0.5], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(2).double(), torch.zeros(1).double()
    joint = joint_of(w[:, None], *bias)
    model = joint.sum(1) / joint.sum()
    for steps in (1, 3):
        after = ends(w, data, steps)
        gap = (data * (data / model).log()).sum() - (after * (after / model).log()).sum()
        assert gap > 0
        dropped = after @ (after / model).log().detach()
        both = torch.autograd.grad(gap + dropped, w, retain_graph=True)[0]
        torch.testing.assert_close(-both, directions(w, data, steps)[1].detach())
    lag = 0.0
    for delta in (0.001, 0.0001):
        for _ in range(5000):
            lag = 0.99 * (lag + delta)
        assert printed(lag, 3 if delta == 0.001 else 4)


def test_energies_and_the_staircase_is_unbiased():
    """notes/07 eqs. (7.46) to (7.51) and (7.58) over all paths; the moves mix badly."""
    w, b, c = small_rbm()
    u, levels = torch.tensor([0.5, -0.3], dtype=torch.float64), (0.0, 0.3, 0.6, 1.0)

    def unnormalised(beta):  # eq. (7.54), by the sum over h
        return joint_of(beta * w, (1 - beta) * u + beta * b, beta * c).sum(1)

    f = [unnormalised(beta) for beta in levels]
    base = 2 * math.log(2) + torch.log1p(u.exp()).sum()
    assert f[0].sum().log().item() == pytest.approx(base.item())  # eq. (7.55)
    moves = []
    for fk in f:  # Metropolis with one bit proposed: few moves, the right stationary law
        t = torch.zeros(4, 4, dtype=torch.float64)
        for i, j in itertools.permutations(range(4), 2):
            if (PAIRS[i] != PAIRS[j]).sum() == 1:
                t[i, j] = 0.1 * min(1.0, (fk[j] / fk[i]).item())
        moves.append(t + torch.diag(1 - t.sum(1)))
    truth, forward, backward, typical, apart = f[-1].sum() / f[0].sum(), 0.0, 0.0, 0.0, 0.0
    for path in itertools.product(range(4), repeat=3):
        q, r = f[0][path[0]] / f[0].sum(), f[-1][path[-1]] / f[-1].sum()
        for k in (1, 2):
            i, j = path[k - 1], path[k]
            q, r = q * moves[k][i, j], r * f[k][i] * moves[k][i, j] / f[k][j]
        if q == 0:
            assert r == 0
            continue
        weight = math.prod(f[k][path[k - 1]] / f[k - 1][path[k - 1]] for k in (1, 2, 3))
        forward, backward = forward + q * weight, backward + r / weight
        typical, apart = typical + q * weight.log(), apart + q * (q / r).log()
    assert forward.item() == pytest.approx(truth.item())
    assert backward.item() == pytest.approx(1 / truth.item())
    assert (truth.log() - typical).item() == pytest.approx(apart.item())


def test_energies_and_the_gaussian_that_moves():
    """notes/07 eq. (7.53): one integral for each step of the staircase; question 9."""
    m = 4.0
    for k in (1, 4, 16, 100):
        step = m / k
        rho = quad(lambda x, s=step: norm.pdf(x, s) ** 2 / norm.pdf(x), -9, 9 + 2 * m)[0] ** k
        apart = k * norm.expect(lambda x, s=step: norm.logpdf(x) - norm.logpdf(x, s))
        scatter = k * norm.expect(lambda x, s=step: (s * x) ** 2)
        assert apart == pytest.approx(scatter / 2)
        name = "1, plain importance sampling" if k == 1 else str(k)
        said = f"{rho:,.0f}" if k == 1 else f"{rho:.4f}"
        assert row_of(name, f"$-{apart:g}$", f"{scatter:g}", said)
    assert 784 * norm.expect(lambda x: (0.5 * x) ** 2) == pytest.approx(196)
    assert "196 / K$, so $K = 196$" in read(ENERGIES)
    assert printed(math.sqrt((math.e - 1) / 100))
    assert printed(math.log(100), 2)


def test_energies_and_the_error_of_log_z():
    """notes/07 eq. (7.56) by the definition of a standard error, and by resampling."""
    weights = np.exp([0.0, 1.0, 2.0, -1.0])
    assert printed(weights.sum())
    assert printed(weights.mean())
    assert printed(math.log(weights.mean()))
    error = weights.std(ddof=1) / math.sqrt(4) / weights.mean()
    assert printed(error)
    ess = weights.sum() ** 2 / (weights**2).sum()
    assert printed(ess)
    assert error == pytest.approx(math.sqrt((4 / ess - 1) / 3))
    rng = np.random.default_rng(0)
    small = rng.lognormal(0, 0.3, size=(20_000, 50))  # 20,000 experiments of 50 chains each
    stated_error = small.std(1, ddof=1) / math.sqrt(50) / small.mean(1)
    off = np.log(small.mean(1)) - 0.3**2 / 2
    assert (np.abs(off) < 1.96 * stated_error).mean() == pytest.approx(0.95, abs=0.02)
    off = np.log(rng.lognormal(0, 0.5, size=(50_000, 20)).mean(1)) - 0.5**2 / 2
    assert off.mean() == pytest.approx(-np.expm1(0.5**2) / (2 * 20), rel=0.3)  # eq. (7.44)
    rest = math.log(2) + math.log1p(math.e) + math.log1p(math.exp(2))  # question 4
    states = itertools.product((0, 1), repeat=3)
    assert math.log(sum(math.exp(b + 2 * h) for _, b, h in states)) == pytest.approx(rest)
    assert all(printed(x) for x in (math.log1p(math.e), math.log1p(math.exp(2)), rest))
    for low in (451.2, 452.9):  # question 10
        assert printed(360 - low, 1)
    assert printed(-3.1 + 9 / 2, 1)  # question 11


def stays(a, s2=1.0, noise=None):
    """The variance that stays in Langevin steps on N(0, s2), by iterating."""
    v, noise = s2, a if noise is None else noise
    for _ in range(200_000):
        v = (1 - a / (2 * s2)) ** 2 * v + noise
    return v


def test_energies_and_langevin_steps():
    """notes/07 section 8: the bias of a step, two directions, passes, and a temperature."""
    assert all(printed(stays(a)) for a in (0.1, 0.5))
    assert "2 for $a = 2$, 40 for $a = 3.9$" in read(ENERGIES)
    assert [stays(2.0), stays(3.9)] == pytest.approx([2, 40])
    assert printed(stays(1.0))
    assert printed(stays(1.0, 100.0), 2)
    assert math.log(1 / math.e) / math.log(1 - 1 / 200) == pytest.approx(200, abs=1)
    assert printed(1 - 1 / 200, 3)
    assert stays(0.02, 0.01) == pytest.approx(0.02)  # question 12
    passes, factors = [], []
    for m in (2, 3, 4, 5):
        height = [-math.log(0.5 * (norm.pdf(x, m) + norm.pdf(x, -m))) for x in (0, m)]
        passes.append(f"{height[0] - height[1]:.2f}")
        factors.append(math.exp(height[0] - height[1]))
    assert f"{', '.join(passes[:3])} and {passes[3]} nats" in read(ENERGIES)
    assert f"a factor of {factors[0]:.1f} to one of {factors[3]:,.0f}" in read(ENERGIES)
    cold = stays(0.4, 1.0, noise=0.1**2)  # eq. (7.67): E / T with the step T a
    t = 0.1**2 / 0.4
    assert cold == pytest.approx(stays(0.4 * t, t))
    assert f"{0.005**2 / 20 * 1e6:.2f} \\cdot 10^{{-6}}" in read(ENERGIES)
    assert f"{0.01**2 / 2 * 1e5:.0f} \\cdot 10^{{-5}}" in read(ENERGIES)  # question 13
    old = sum(0.05 * 0.95 ** (n - 1) for n in range(61, 5000))
    assert printed(old)
    life = sum(n * 0.05 * 0.95 ** (n - 1) for n in range(1, 5000))
    assert f"${life:.0f} \\cdot 10 = {10 * life:.0f}$" in read(ENERGIES)
    gaps = [
        minimize_scalar(lambda e, g=gamma: -e + g * e * e).x
        - minimize_scalar(lambda e, g=gamma: e + g * e * e).x
        for gamma in (0.1, 0.01)  # eq. (7.70)
    ]
    said = f"allows for a gap of {gaps[0]:.0f}, $\\gamma = 0.01$ for one of {gaps[1]:.0f}"
    assert said in read(ENERGIES)


def two_groups(x, share, m, t=0.0):
    """Density and score of Gaussians of variance 1 + t at -m (with this share) and m."""
    x = torch.as_tensor(x, dtype=torch.float64).requires_grad_()
    parts = Normal(torch.tensor([-m, m]).double(), math.sqrt(1 + t)).log_prob(x[:, None])
    log_p = torch.logsumexp(parts + torch.tensor([share, 1 - share]).double().log(), 1)
    return log_p.detach().exp(), torch.autograd.grad(log_p.sum(), x)[0]


def test_energies_and_scores():
    """notes/07 section 10: fits by hand, where it fails, blindness, and all levels together."""
    x = np.array([1.0, -1.0, 2.0, -2.0])
    best = minimize_scalar(lambda a: np.mean(0.5 * (a * x) ** 2 - a)).x
    assert best == pytest.approx(0.4)
    assert r"smallest at $\theta = 0.4$" in read(ENERGIES)
    for theta in (0.5, 1.0, 2.0):  # the exponential density and its boundary term
        right = quad(lambda x, a=theta: math.exp(-x) * 0.5 * (-1 + a) ** 2, 0, 50)[0]
        assert right == pytest.approx(0.5 * theta**2 - theta + 0.5)
    for sigma in (0.5, 0.1):  # eq. (7.75)
        learned = Normal(0.0, math.sqrt(0.25 + sigma**2))
        assert printed(kl_divergence(Normal(0.0, 0.5), learned).item())
    for m in (1, 2, 3, 4, 5):
        grid = np.linspace(-m - 9, m + 9, 40_001)
        (p, s), (q, r) = (two_groups(grid, share, m) for share in (0.5, 0.9))
        kl, fisher = (
            (p * f).sum() * (grid[1] - grid[0]) for f in ((p / q).log(), (s - r) ** 2 / 2)
        )
        said = f"{fisher:.4f}" if m < 5 else f"{fisher:.6f}"
        assert row_of(str(m), f"{kl:.4f}", said)
    levels = np.concatenate([np.linspace(0, 20, 401), np.geomspace(20, 1e5, 300)[1:]])
    gaps = []
    for t in levels:
        width = math.sqrt(1 + t)
        grid = np.linspace(-4 - 9 * width, 4 + 9 * width, 4001)
        (p, s), (_, r) = (two_groups(grid, share, 4, t) for share in (0.5, 0.9))
        gaps.append(((p * (s - r) ** 2).sum() / 2 * (grid[1] - grid[0])).item())
    whole = np.trapezoid(gaps, levels)
    assert whole == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), abs=1e-4)
    assert printed(whole)
    assert all(printed(gaps[k]) for k in (20, 60))  # t = 1 and t = 3
    pulled = two_groups([0.5], 0.5, 1.0, 0.25 - 1)[1].item()  # question 14
    assert printed(pulled)
    assert printed(math.tanh(2))


def test_energies_in_pairs():
    """notes/07 eq. (7.76): noise at +eps and -eps for the score -x^3, as sigma shrinks."""
    x, eps = 0.7, 1.3
    limit = 0.5 * x**6 - 3 * x**2 * eps**2
    for sigma in (1e-2, 1e-3):
        terms = [0.5 * (-sigma * (x + sigma * e) ** 3 + e) ** 2 for e in (eps, -eps)]
        assert (np.mean(terms) - 0.5 * eps**2) / sigma**2 == pytest.approx(limit, abs=20 * sigma**2)


def test_energies_without_training():
    """The anchors of notes/07 section 14.2, as means over the draws of black and white."""
    data = utils.load_images("mnist5k")
    train, test = (x.double().flatten(1) for x in (data.train, data.test))
    half = torch.full_like(test[0], 0.5)
    means = train.mean(0).clamp(1e-3, 1 - 1e-3)
    cost = partial(torch.nn.functional.binary_cross_entropy, reduction="sum")
    for p, places in ((half, 1), (means, 2)):
        assert printed(cost(p.expand_as(test), test).item() / len(test), places)
    assert printed(cost(test, test).item() / len(test), 2)


def nce_loss(m, shift=0.0):
    """notes/07 eq. (7.82) for data N(m, 1), noise N(0, 1), log-ratio off by a constant."""
    x = np.linspace(-12, m + 12, 40_001)
    ratio = norm.logpdf(x, m) - norm.logpdf(x) + shift
    terms = norm.pdf(x, m) * np.logaddexp(0, -ratio) + norm.pdf(x) * np.logaddexp(0, ratio)
    return terms.sum() * (x[1] - x[0])


def test_energies_and_noise():
    """notes/07 section 11 by direct minimisation, autograd and quadrature."""
    p, q = torch.tensor([0.8, 0.2]).double(), torch.tensor([0.5, 0.5]).double()
    ratio = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([ratio], max_iter=100, tolerance_grad=1e-12)
    softplus = torch.nn.functional.softplus

    def closure():
        optimizer.zero_grad()
        loss = p @ softplus(-ratio) + q @ softplus(ratio)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert all(printed(v) for v in (*ratio.tolist(), *ratio.sigmoid().tolist(), closure().item()))
    x, data = torch.arange(3).double(), torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    table = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    for nu in (1, 10, 100):
        theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
        logit = table + theta * x + math.log(3 / nu)  # psi is a number of its own
        loss = data @ softplus(-logit) + nu * softplus(logit).mean()
        assert printed(-torch.autograd.grad(loss, theta)[0].item(), 5)
    assert data @ x - table.exp() @ x == pytest.approx(0.6)
    for m, places in ((0, 4), (2, 4), (4, 4), (8, 5)):
        cost = nce_loss(m, 1.0) - nce_loss(m)
        assert row_of(str(m), f"{nce_loss(m):.4f}", f"{cost:.{places}f}")


def test_energies_that_remember():
    """notes/07 eqs. (7.88) and (7.89), and question 15."""

    def energy(x, beta=2.0):
        return 0.5 * x**2 - torch.logsumexp(torch.stack([beta * x, -beta * x]), 0) / beta

    def step(x):
        x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        return (x - torch.autograd.grad(energy(x), x)[0]).item()

    x = step(0.5)
    assert printed(x)
    for _ in range(60):
        x = step(x)
    assert printed(x)
    w, v = torch.tensor([0.7, -0.4]).double(), torch.tensor([1.0, 1.0]).double()
    total = quad(lambda h: math.exp(-0.5 * h * h + (v @ w).item() * h), -12, 12)[0]
    assert -math.log(total) == pytest.approx(
        -0.5 * (v @ w).item() ** 2 - 0.5 * math.log(2 * math.pi)
    )
    grid = np.linspace(-14, 16, 6001)
    late, early = norm.pdf(grid, 1, math.sqrt(1.5)), norm.pdf(grid, 0, math.sqrt(2))
    early = early * norm.pdf(grid, 2, math.sqrt(2))
    kernel = norm.pdf(np.linspace(-15, 15, 6001)) * (grid[1] - grid[0])
    product = norm.pdf(grid) * norm.pdf(grid, 2)
    noised = np.convolve(product / product.sum(), kernel, mode="same")
    variances = [
        np.average((grid - np.average(grid, weights=f)) ** 2, weights=f)
        for f in (late, noised, early)
    ]
    assert variances == pytest.approx([1.5, 1.5, 1.0], abs=1e-3)
    j = torch.tensor([[2.0, 1.0], [1.0, 3.0]])  # question 16
    signs = [torch.tensor(z) for z in itertools.product((-1.0, 1.0), repeat=2)]
    assert sorted((z @ j @ z).item() for z in signs) == [3, 3, 7, 7]
    assert printed(math.sqrt(784 / 2), 1)


def value_of(formula):
    """The value of a formula of plain numbers, or None if it has anything else in it."""
    for said, meant in (
        (r"\\frac (\d) (\d)", r"(\1/\2)"),
        (r"\\frac\{([^{}]+)\}\{([^{}]+)\}", r"((\1)/(\2))"),
        (r"\\sqrt\{([^{}]+)\}", r"math.sqrt(\1)"),
        (r"\\mathrm\{sigmoid\}\(([^()]+)\)", r"(1/(1+math.exp(-(\1))))"),
        (r"\\mathrm\{softplus\}\(([^()]+)\)", r"math.log1p(math.exp(\1))"),
        (r"\\(tanh|log) ([\d.]+)", r"math.\1(\2)"),
        (r"\be\^\{?([\d.]+)\}?", r"math.exp(\1)"),
        (r"\^\{?(-?[\d.]+)\}?", r"**\1"),
        (r"\{,\}", ""),
        (r"\\cdot", "*"),
    ):
        formula = re.sub(said, meant, formula)
    names = set(re.findall(r"[a-zA-Z\\]\w*", formula))
    if names <= {"math", "sqrt", "exp", "log", "log1p", "tanh"} and re.search(r"\d", formula):
        try:
            return eval(formula.strip(), {"math": math, "__builtins__": {}})
        except (SyntaxError, TypeError):  # half a formula, or vectors
            return None
    return None


def test_energies_add_up():
    """Both sides of every equation of plain numbers in notes/07, to one unit of the last digit."""
    checked = 0
    for formula in INLINE.findall(DISPLAY.sub("", without_code(read(ENERGIES)))):
        for left, right in itertools.pairwise(formula.split("=")):
            a, b = value_of(left), value_of(right)
            if isinstance(a, int | float) and isinstance(b, int | float):
                digits = min(len(s.strip().partition(".")[2]) or 9 for s in (left, right))
                assert a == pytest.approx(b, rel=1e-6, abs=1.5 * 10 ** -min(digits, 4)), formula
                checked += 1
    assert checked > 25


# --- The worked examples of notes/08, computed again by other means

ORDERS = ROOT / "notes" / "08_autoregressive_models_guide.md"
noted = partial(stated, note=ORDERS)
TWO_PIXELS = torch.tensor([[0.4, 0.1], [0.1, 0.4]], dtype=torch.float64)


def in_notes(text):
    """Whether notes/08 has these words; fails if it does not."""
    assert text in read(ORDERS), f"not said: {text}"
    return True


def test_autoregression_by_the_chain_rule():
    """notes/08 section 1: the two pixels in both orders, and what tables would need."""
    p = TWO_PIXELS
    for joint in (p, p.T):  # in either order
        first = joint.sum(dim=1)
        later = [entropy_of(row / row.sum()) for row in joint]
        assert entropy_of(first) + (first @ torch.tensor(later).double()).item() == pytest.approx(
            entropy_of(p)
        )
        assert noted(later[0])
    assert noted(entropy_of(p))
    assert noted(2 * math.log(2))
    assert noted(2 * math.log(2) - entropy_of(p))
    assert noted(
        kl_divergence(Categorical(p.flatten()), Categorical(torch.ones(4).double())).item()
    )
    assert in_notes(
        f"need {2**20 - 1:,} numbers, 784 need about $10^{{{math.log10(2) * 784:.0f}}}$"
    )
    assert sum(2**i for i in range(5)) == 2**5 - 1  # question 1
    assert in_notes("$2^5 - 1 = 31$ free numbers; $1 + 2 + 4 + 8 + 16 = 31$")


def test_autoregression_and_units():
    """notes/08 section 2: bits, bytes, coarser levels, and the table of baselines."""
    assert noted(784 * math.log(2), 2)
    assert noted(1.25 * 3072 * math.log(2), 2)  # question 2
    fine = np.array([0.5, 0.25, 0.125, 0.125])
    coarse = fine.reshape(2, 2).sum(axis=1)
    within = [entropy_of(pair / pair.sum()) / math.log(2) for pair in fine.reshape(2, 2)]
    assert entropy_of(fine) / math.log(2) == 1.75
    assert noted(entropy_of(coarse) / math.log(2))
    assert noted(within[0])
    assert noted(1.75 - entropy_of(coarse) / math.log(2))
    assert coarse @ within == pytest.approx(1.75 - entropy_of(coarse) / math.log(2))
    images = utils.load_images("mnist5k")
    train, test = (255 * torch.as_tensor(x).flatten(1) for x in (images.train, images.test))
    for levels in (2, 4, 16, 256):
        k, new = ((x.round().long() * levels) // 256 for x in (train, test))
        counts = torch.stack([(k == level).sum(dim=0) for level in range(levels)]).double() + 0.5
        alone = (counts / counts.sum(dim=0)).log2()
        mixed = counts.sum(dim=1) - 0.5 * 783  # half a count for each level, not for each pixel
        together = -(mixed / mixed.sum()).log2()[new].mean().item()
        apart = -alone.gather(0, new).mean().item()
        cells = (levels, int(math.log2(levels)), f"{together:.4f}", f"{apart:.4f}")
        said = " | ".join(map(str, cells))
        assert in_notes(f"| {said} | {apart * 784 * math.log(2):.2f} |")
    share = torch.bincount(train.round().long().flatten(), minlength=256) / train.numel()
    assert in_notes(f"{share[0]:.1%}".replace("%", "% of the training pixels"))
    assert share.argsort(descending=True)[:5].tolist() == [0, 253, 254, 252, 255]
    assert in_notes(f"253 ({share[253]:.1%})")


def test_autoregression_with_logistic_bins():
    """notes/08 eqs. (8.17) to (8.20) against scipy's distribution function."""
    edges = logistic.cdf([0.5, 1.5, 2.5], loc=1, scale=0.5)
    masses = np.diff(np.concatenate([[0], edges, [1]]))
    assert masses.sum() == 1
    assert all(noted(m) for m in (*masses, *edges))
    for s in (1, 0.25):
        centre = logistic.cdf(0.5, scale=s) - logistic.cdf(-0.5, scale=s)
        assert centre == pytest.approx(math.tanh(1 / (4 * s)))
        assert noted(centre)
    s = brentq(lambda s: logistic.cdf(0.5, scale=s) - logistic.cdf(-0.5, scale=s) - 0.99, 0.01, 1)
    assert noted(s)
    a, b = 41.0, 40.0  # where the plain difference has lost its digits
    exact = quad(logistic.pdf, b, a)[0]
    product = logistic.cdf(a) * logistic.cdf(-b) * -math.expm1(b - a)
    assert product == pytest.approx(exact, rel=1e-9)
    assert logistic.cdf(a) == logistic.cdf(b)


def test_autoregression_draws_by_clocks():
    """notes/08 eq. (8.11) by quadrature."""
    rates = np.exp([0.3, -1.0, 1.2])
    for i, rate in enumerate(rates):
        others = np.delete(rates, i)
        p = quad(
            lambda t, r, o: r * math.exp(-r * t) * math.exp(-t * o), 0, 60, (rate, others.sum())
        )
        assert p[0] == pytest.approx(rate / rates.sum())


def test_autoregression_and_parity():
    """notes/08 sections 3.1 and 4.4: what one linear layer cannot, and one gate can."""
    pairs = torch.cat([PAIRS, torch.ones(4, 1).double()], dim=1)
    target = (PAIRS.sum(dim=1) == 1).double()
    best = minimize(
        lambda w: np.logaddexp(0, -(2 * target.numpy() - 1) * (pairs.numpy() @ w)).mean(),
        [1.0, -2.0, 0.5],
        tol=1e-12,
    )
    assert best.fun == pytest.approx(math.log(2))
    assert noted(best.fun)
    assert in_notes(f"{sum(range(784)) + 784:,} for 784 pixels")
    c, signs = 1.7, 2 * PAIRS - 1
    out = torch.tanh(signs[:, 0]) * (torch.sigmoid(c * signs[:, 1]) - 0.5)
    factor = 0.5 * math.tanh(1) * math.tanh(c / 2)
    assert torch.allclose(out, factor * signs.prod(dim=1))


def test_autoregression_counts_nade():
    """notes/08 eq. (8.23): multiplications, counted one conditional at a time."""
    hidden, naive, running = 500, 0, 0
    for i in range(784):
        naive += i * hidden
        running += 2 * hidden
    assert in_notes(f"{naive + 784 * hidden:,} against {running:,}")
    assert noted((naive + 784 * hidden) / running, 2)
    rng = np.random.default_rng(0)  # and the sum that runs is the sum
    w, x, c = rng.normal(size=(5, 4)), rng.integers(0, 2, 4), rng.normal(size=5)
    a = c
    for i in range(4):
        assert a == pytest.approx(c + w[:, :i] @ x[:i])
        a = a + w[:, i] * x[i]


def test_autoregression_counts_paths():
    """notes/08 eqs. (8.24) and (8.25): question 4 by the gradient of a network of ones."""
    rank, degree = torch.tensor([3, 1, 2]), torch.tensor([1, 1, 2])
    sees = torch.stack([(m >= rank).double() for m in degree])
    seen = torch.stack([(degree < r).double() for r in rank])
    paths = torch.autograd.functional.jacobian(lambda x: seen @ (sees @ x), torch.ones(3).double())
    for matrix in (sees, seen, paths):
        rows = r" \cr ".join(" & ".join(f"{int(v)}" for v in row) for row in matrix)
        assert in_notes(rf"\begin{{pmatrix}} {rows} \end{{pmatrix}}")
    used = {1 + k * 783 // 500 for k in range(500)}  # degrees, evenly from 1 to 783
    blind = [r for r in range(2, 785) if r - 1 not in used]
    assert in_notes(f"at least {len(blind)} of 783 outputs")


def test_autoregression_must_not_average_logits():
    """notes/08 eqs. (8.26) to (8.28): the two pixels, two perfect members."""
    p = TWO_PIXELS
    first, given = p.sum(dim=1).log(), (p / p.sum(dim=1, keepdim=True)).log()  # p is symmetric
    total, loss = 0.0, 0.0
    for i, j in itertools.product((0, 1), repeat=2):
        logit_1 = (first[1] - first[0] + given[j, 1] - given[j, 0]) / 2  # A, and B who knows x_2
        logit_2 = (given[i, 1] - given[i, 0] + first[1] - first[0]) / 2
        q = torch.sigmoid((2 * i - 1) * logit_1) * torch.sigmoid((2 * j - 1) * logit_2)
        assert q.item() == pytest.approx(4 / 9 if i == j else 1 / 9)
        total, loss = total + q.item(), loss - (p[i, j] * q.log()).item()
        assert math.exp(first[i] + given[i, j]) == pytest.approx(p[i, j].item())
    assert total == pytest.approx(10 / 9)
    assert noted(loss)
    assert loss < entropy_of(p)
    log_p = torch.randn(8, 100, generator=torch.manual_seed(0)).double() * 3 - 80
    mean = log_p.exp().mean(dim=0).log()
    assert (mean >= log_p.mean(dim=0)).all()
    assert (mean <= log_p.max(dim=0).values).all()
    assert (mean >= log_p.max(dim=0).values - math.log(8)).all()
    assert noted(math.log(8), 2)


def unseen(height, width, side, rounds=60):
    """{place: earlier places that masked convolutions never reach}, by following all paths."""
    steps = [(a, b) for a in range(-side, 1) for b in range(-side, side + 1) if (a, b) < (0, 0)]
    missed = {}
    for place in itertools.product(range(height), range(width)):
        seen, edge = set(), {place}
        for _ in range(rounds):
            edge = {(i + a, j + b) for i, j in edge for a, b in steps}
            edge = {(i, j) for i, j in edge if i >= 0 and 0 <= j < width} - seen
            seen |= edge
        earlier = place[0] * width + place[1]
        missed[place] = [divmod(k, width) for k in range(earlier) if divmod(k, width) not in seen]
    return missed


def test_autoregression_and_the_blind_spot():
    """notes/08 eqs. (8.31) and (8.32), counted by walking."""
    small = unseen(5, 5, 1)
    drawn = [["s" if (i, j) < (3, 1) else "." for j in range(5)] for i in range(4)]
    for i, j in small[3, 1]:
        drawn[i][j] = "o"
    drawn[3][1] = "X"
    assert in_notes("\n".join(" ".join(row) for row in drawn))
    assert (len(small[3, 1]), len(small[2, 2])) == (3, 1)
    assert (len(unseen(6, 6, 1)[4, 2]), len(unseen(6, 6, 2)[4, 2])) == (3, 1)  # question 5
    for side, share in ((1, "22.1%"), (2, "12.2%"), (3, "8.0%")):
        missed = {  # (8.32), which the walk confirms on a smaller picture
            (i, j): sum(max(0, 27 - j - a * side) for a in range(1, i + 1))
            for i, j in itertools.product(range(28), repeat=2)
        }
        assert f"{sum(missed.values()) / (784 * 783 / 2):.1%}" == share
        assert in_notes(share)
        walked = unseen(7, 8, side)
        for (i, j), places in walked.items():
            assert len(places) == sum(max(0, 7 - j - a * side) for a in range(1, i + 1))
        if side == 1:
            assert (missed[14, 14], 14 * 28 + 14) == (78, 406)
            assert in_notes(f"{78 / 406:.1%}")
            assert 28 - missed[1, 0] == 2


def test_autoregression_sees_everything_with_two_stacks():
    """notes/08 eqs. (8.33) to (8.35): the paths backwards through both stacks, in sets."""

    def seen_from(place, dilations, width):
        """Pixels on which the horizontal stack of the script depends at a place."""
        h, v = {place}, set()
        for rows, side, columns, d, link in (
            *((2, 1, 2, d, True) for d in reversed(dilations)),
            (3, 2, 3, 1, False),  # the first layer
        ):
            v = v | h if link else v
            steps = [(a * d, b * d) for a in range(rows) for b in range(-side, side + 1)]
            v = {(i - a, j + b) for i, j in v for a, b in steps}
            h = {(i, j - b * d) for i, j in h for b in range(columns)}
            v = {(i, j) for i, j in v if i >= 0 and 0 <= j < width}  # outside are zeros
            h = {(i, j) for i, j in h if j >= 0}
        pixels = {(i - 1, j) for i, j in v} | {(i, j - 1) for i, j in h}
        return {(i, j) for i, j in pixels if i >= 0 and j >= 0}

    for dilations, rows, sides in (((1, 2, 4, 2), 12, 11), ((1,) * 4, 7, 6)):
        seen = seen_from((30, 30), dilations, 60)
        assert all(pixel < (30, 30) for pixel in seen)  # earlier, as one reads
        assert 30 - min(i for i, _ in seen) == rows
        assert 30 - min(j for i, j in seen if i == 30) == rows
        assert max(j for i, j in seen if i == 29) - 30 == sides
        box = itertools.product(range(30 - rows, 30), range(30 - sides, 31 + sides))
        assert seen >= set(box)  # all of it: no spot is blind
    assert in_notes("12$ rows, as many pixels to the left, and $2 + 9 = 11$ columns")
    assert in_notes("without dilation 7, 7 and 6")
    assert seen_from((5, 4), (1,) * 9, 9) == {divmod(k, 9) for k in range(5 * 9 + 4)}


def test_autoregression_given_something():
    """notes/08 section 5: labels are worth log 10; what is no beginning needs weights."""
    assert noted(math.log(10))
    assert noted(math.log(10) / 784 / math.log(2))
    assert noted(80.0 + math.log(10) - 80.1)  # question 11
    p = TWO_PIXELS
    first, given = p.sum(dim=1), p / p.sum(dim=1, keepdim=True)
    weights = given[:, 1]  # x_2 = 1 is known, x_1 was drawn in ignorance of it
    right = p[:, 1] / p[:, 1].sum()
    assert torch.allclose(first * weights / (first @ weights), right)
    assert right.tolist() == pytest.approx([0.2, 0.8])
    assert (first @ weights).item() == pytest.approx(p[:, 1].sum().item())


def test_autoregression_hears_in_logarithms():
    """notes/08 eqs. (8.47) to (8.49): the round trip of mu-law."""

    def there(x):
        return np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(256)

    def level(x):
        return np.rint((x + 1) / 2 * 255)

    def back(k):
        y = 2 * k / 255 - 1
        return np.sign(y) * np.expm1(np.abs(y) * np.log(256)) / 255

    x = np.linspace(-1, 1, 100_001)
    factor = 256 ** (1 / 255) - 1
    bound = (1 / 255 + np.abs(x)) * factor
    error = np.abs(back(level(there(x))) - x)
    assert (error <= bound + 1e-12).all()
    assert (error / bound).max() > 0.99
    assert noted(factor, 5)
    assert noted(factor / 255, 6)
    assert noted(factor * (1 + 1 / 255))
    assert noted(1 / 255 / factor - 1 / 255)
    assert noted(there(0.1), 5)
    assert noted((there(0.1) + 1) / 2 * 255, 2)
    assert (level(there(0.1)), level(there(0.001))) == (203, 133)
    assert noted(2 * 203 / 255 - 1, 5)
    assert all(noted(back(k), 5) for k in (203, 133))
    assert noted((1 / 255 + 0.1) * factor, 5)
    assert f"{2 * level(0.001) / 255 - 1:.5f}" == "0.00392"
    y, tiny = 0.6, 1e-5  # (8.48): the slope of the inverse, in levels
    slope = (back((y + tiny + 1) / 2 * 255) - back((y - tiny + 1) / 2 * 255)) / (2 * tiny)
    assert slope == pytest.approx(math.log(256) * (1 / 255 + back((y + 1) / 2 * 255)))
    assert in_notes(f"{1 / 255 / 0.01:.0%} at an amplitude of 0.01")  # question 7


def modes(*taps):
    """Roots of y_n = sum of taps, (delay, weight), as (pitch over f_s, samples to fall by e)."""
    longest = max(delay for delay, _ in taps)
    polynomial = np.zeros(longest + 1)
    polynomial[0] = 1
    for delay, weight in taps:
        polynomial[delay] -= weight
    roots = [z for z in np.roots(polynomial) if z.imag > 1e-9 and abs(z) > 0.1]
    return sorted((np.angle(z) / (2 * math.pi), -1 / math.log(abs(z))) for z in roots)


def test_autoregression_plucks_strings():
    """notes/08 eqs. (8.50) to (8.54): pitch and decay as roots of the loop's polynomial."""
    rate = 8000
    for n in (17, 18):
        ring = brentq(
            lambda w, n=n: -np.angle(np.exp(-1j * w * n) * (1 + np.exp(-1j * w))), 0.2, 0.5
        )
        assert ring * rate / (2 * math.pi) == pytest.approx(rate / (n + 0.5))
        assert noted(rate / (n + 0.5), 2)
    cents = [1200 * math.log2(rate / (n + 0.5) / 440) for n in (17, 18)]
    assert in_notes(f"{cents[0]:.0f} cents below the one and {-cents[1]:.0f} cents above the other")
    string = modes((18, 0.5), (19, 0.5))
    assert [f for f, _ in string[:4]] == pytest.approx([m / 18.5 for m in (1, 2, 3, 4)], rel=1e-3)
    assert in_notes(f"by {-1200 * math.log2(18.5 * string[0][0]):.2f} cents")
    assert noted(string[0][1] / rate)
    assert noted(string[1][1] / rate)
    n, a = 17, rate / 440 - 17.5
    assert noted(a)
    tuned = modes((n, (1 - a) / 2), (n + 1, 0.5), (n + 2, a / 2))[0][0] * rate
    assert noted(tuned, 2)
    assert in_notes(f"{1200 * math.log2(440 / tuned):.2f} cents flat")
    assert in_notes(f"within {-1 / math.log(0.996):.1f} turns")
    period = 16000 / 220  # question 8
    assert noted(period)
    assert noted(period - 72.5)
    assert noted(2 * period**3 / (math.pi**2 * 16000), 2)
    assert noted(2 * period**3 / (math.pi**2 * 16000) / 100, 3)


def test_autoregression_measures_pitch():
    """notes/08 eqs. (8.55) to (8.57): a parabola through three shifts of a sine."""

    def vertex(low, top, high):
        a, b, _ = np.polyfit([-1, 0, 1], [low, top, high], 2)
        return -b / (2 * a)

    assert noted(vertex(0.8, 1, 0.9))
    t = np.arange(200_000)
    x = np.sin(2 * math.pi * 440 * t / 8000)
    c = {s: x[:-s] @ x[s:] / math.sqrt((x[:-s] @ x[:-s]) * (x[s:] @ x[s:])) for s in (17, 18, 19)}
    shift = 18 + vertex(*c.values())
    assert shift == pytest.approx(18.1802, abs=2e-4)
    assert noted(18.1802)
    assert noted(8000 / shift, 2)
    assert in_notes(f"{1200 * math.log2(8000 / shift / 440):.2f} cents sharp")
    assert noted(8000 / 18, 2)
    assert in_notes(f"{1200 * math.log2(8000 / 18 / 440):.0f} cents sharp")
    assert in_notes(f"are {1200 * math.log2(19 / 18):.0f} cents apart")
    assert noted(2 * 8000 / 110, 1)  # question 6
    assert 2**7 < 2 * 8000 / 110 < 2**8
    for delay in range(2**5):  # one path to each past sample of a block
        paths = [s for s in itertools.product((0, 1), repeat=5) if s @ 2 ** np.arange(5) == delay]
        assert len(paths) == 1
    assert in_notes(f"= {1 + 3 * sum(2**i for i in range(10))}$")
    assert noted(1024 / 16, 0)
    script = [2**i for i in range(7)]
    assert in_notes(f"= {2 + sum(script)}$ samples, {(2 + sum(script)) / 8:.0f} milliseconds")


def test_autoregression_pays_for_attention():
    """notes/08 eqs. (8.59) to (8.65): multiplications, counted step by step."""

    def step(i, d):
        """Place i (from 1) with keys and values kept: projections, network, products, means."""
        return 4 * d * d + 8 * d * d + i * d + i * d

    def whole(n, d):
        return sum(step(i, d) for i in range(1, n + 1))

    for n in (784, 196):
        parts = 12 * n * 64**2, whole(n, 64) - 12 * n * 64**2
        assert all(noted(part / 1e6, 1) for part in parts)
    naive = sum(whole(i, 64) for i in range(1, 197))
    assert in_notes(f"{naive:,} for each layer, against {whole(196, 64):,}")
    assert in_notes(f"a factor of {naive / whole(196, 64):.1f}")
    naive, kept = sum(whole(i, 128) for i in range(1, 1025)), whole(1024, 128)  # question 10
    attention = kept - 12 * 1024 * 128**2
    assert in_notes(f"{12 * 1024 * 128**2:,}".replace(",", "{,}"))
    assert in_notes(f"{attention:,}".replace(",", "{,}") + f"$: {attention / kept:.0%}")
    assert in_notes(f"${naive / 1e11:.2f} \\cdot 10^{{11}}$")
    assert in_notes(f"${kept / 1e8:.2f} \\cdot 10^8$: a factor of {naive / kept:.0f}")
    q, k = torch.randn(2, 40_000, 64, generator=torch.manual_seed(0))
    assert (q * k).sum(dim=1).var().item() == pytest.approx(64, rel=0.05)
    assert noted(8 * math.sqrt(2), 1)


def test_autoregression_starts_at_the_histogram():
    """notes/08 eq. (8.63)."""
    counts = torch.tensor([7.0, 0.0, 3.0], dtype=torch.float64)
    bias = ((counts + 0.5) / (counts.sum() + 1.5)).log()
    assert bias.exp().sum().item() == pytest.approx(1)
    coin = entropy_of([0.1307, 1 - 0.1307])
    assert noted(coin)
    assert noted(784 * coin, 1)


def test_autoregression_at_another_temperature():
    """notes/08 eqs. (8.67) and (8.68): two pixels, and question 9."""
    first = torch.tensor([0.6, 0.4], dtype=torch.float64)
    given = torch.tensor([[0.5, 0.5], [0.1, 0.9]], dtype=torch.float64)
    p = first[:, None] * given
    joint = (p**2 / (p**2).sum()).flatten()
    single = (first**2 / (first**2).sum())[:, None] * given**2 / (given**2).sum(1, keepdim=True)
    for name, q in (("$p^2$, normalised", joint), (r"step by step, $T = \frac 1 2$", single)):
        assert in_notes(f"| {name} | " + " | ".join(f"{v:.4f}" for v in q.flatten()) + " |")
    assert p.argmax() == 3
    assert first.argmax() == 0  # greedy begins with 0
    zeta = (given**2).sum(dim=1)
    assert zeta.tolist() == pytest.approx([0.5, 0.82])
    ahead = first**2 * zeta
    assert (ahead / ahead.sum())[0].item() == pytest.approx(joint[:2].sum().item())
    assert noted((ahead / ahead.sum())[0].item())
    assert noted((first**2 / (first**2).sum())[0].item())
    draft = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)  # a draft and a check
    target = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    accept = draft * (target / draft).clamp(max=1)
    rest = (target - draft).clamp(min=0)
    assert torch.allclose(accept + (1 - accept.sum()) * rest / rest.sum(), target)


def test_autoregression_on_its_own():
    """notes/08 section 10: bounds, slips, and where scheduled sampling ends."""
    assert noted(math.sqrt(0.784 / 2))
    rng = np.random.default_rng(0)
    for _ in range(50):  # Pinsker, and errors that add up, on three binary places
        p, q = rng.dirichlet(np.full((2, 8), 0.7).mean(0), size=2).reshape(2, 2, 2, 2)
        tv = np.abs(p - q).sum() / 2
        assert tv <= math.sqrt((p * np.log(p / q)).sum() / 2) + 1e-12
        total = 0
        for i in range(3):
            later = tuple(range(i + 1, 3))
            a, b = p.sum(later), q.sum(later)
            given = [m / m.sum(-1, keepdims=True) for m in (a, b)]
            total += (a.sum(-1) * np.abs(given[0] - given[1]).sum(-1) / 2).sum()
        assert tv <= total + 1e-12
    for slip in (0.001, 0.01):
        assert noted((1 - slip) ** 784)
    after = sum(1 - 0.999**t for t in range(1, 785))
    walk = [(784 - t) * 0.001 * 0.999**t for t in range(784)]  # first slip at t, and all after it
    assert sum(walk) == pytest.approx(after)
    assert in_notes(f"{after:.1f} of 784")
    assert after <= 0.001 * 784 * 785 / 2
    p = TWO_PIXELS
    seen = 0.5 * p + 0.5 * torch.outer(p.sum(dim=1), p.sum(dim=0))  # pairs of given past, target
    assert noted((seen / seen.sum(dim=1, keepdim=True))[1, 1].item(), 2)
    model = torch.tensor([0.25, 0.25, 0.25, 0.25])  # question 13
    assert (model - torch.tensor([1.0, 0, 0, 0])).abs().sum() / 2 == 0.75


def test_autoregression_speaks():
    """notes/08 eqs. (8.74) and (8.75)."""
    assert noted(math.exp(3), 2)
    assert noted(2**0.9, 3)
    assert noted(3 * math.log2(math.e) / 4.5)
    p = np.full(7, 1 / 50)
    assert np.prod(p) ** (-1 / 7) == pytest.approx(50)


def test_autoregression_adds_up():
    """Both sides of every equation of plain numbers in notes/08, to one unit of the last digit."""
    checked = 0
    for formula in INLINE.findall(DISPLAY.sub("", without_code(read(ORDERS)))):
        for left, right in itertools.pairwise(formula.split("=")):
            a, b = value_of(left), value_of(right)
            if isinstance(a, int | float) and isinstance(b, int | float):
                digits = min(len(s.strip().partition(".")[2]) or 9 for s in (left, right))
                assert a == pytest.approx(b, rel=1e-6, abs=1.5 * 10 ** -min(digits, 4)), formula
                checked += 1
    assert checked > 25
