"""The pictures of the docs, drawn anew by `python3 tasks.py docs`.

Every number in them is computed here by the library's own functions; the three kinds of knowledge are a drawing.
"""

from pathlib import Path

import matplotlib
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_distill.functional import forward_kl


IMAGES = Path(__file__).parent / "images"
CLASSES = ["cat", "dog", "fox", "car"]
TEACHER_LOGITS = torch.tensor([6.0, 4.0, 3.0, -1.0])
TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
BLUE, ORANGE, GREEN, RED = "#4269d0", "#e0871b", "#3a9e5c", "#d1495b"
INK = "#808080"  # reads on white and on dark pages

STYLE = {
    "svg.hashsalt": "hf_distill",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def temperature() -> Figure:
    """One teacher's distribution at four temperatures."""
    figure, axes = plt.subplots(1, len(TEMPERATURES), figsize=(8, 2.4), sharey=True)
    for ax, each in zip(axes, TEMPERATURES, strict=True):
        bars = ax.bar(CLASSES, torch.softmax(TEACHER_LOGITS / each, dim=-1).tolist(), color=BLUE)
        ax.bar_label(bars, fmt="%.2f", color=INK, fontsize=9)
        ax.set(title=f"T = {each:g}", ylim=(0, 1.05))
        ax.title.set_color(INK)
    axes[0].set_ylabel("teacher's probability")
    return figure


def temperature_gradient() -> Figure:
    """What the factor T² is for: the gradient's size with it and without it."""
    temperatures = torch.logspace(0, 1.2, 40)
    with_factor = torch.stack([_gradient_norm(each.item()) for each in temperatures])
    figure, ax = plt.subplots(figsize=(5, 2.8))
    ax.plot(temperatures, with_factor, color=BLUE, label="T² · KL, as in the library")
    ax.plot(temperatures, with_factor / temperatures**2, color=RED, label="KL without T²")
    ax.set(xscale="log", yscale="log", xlabel="temperature T", ylabel="gradient's length")
    ax.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"], minor=False)
    ax.legend(frameon=False, labelcolor=INK)
    return figure


def _gradient_norm(each: float) -> torch.Tensor:
    student = torch.zeros_like(TEACHER_LOGITS, requires_grad=True)
    forward_kl(student, TEACHER_LOGITS, temperature=each).backward()
    return student.grad.norm()


def alpha() -> Figure:
    """The distribution that minimises alpha · CE + (1 − alpha) · KL at T = 1, for a row that is labelled "dog"."""
    alphas = torch.linspace(0, 1, 50)
    label = torch.nn.functional.one_hot(torch.tensor(CLASSES.index("dog")), len(CLASSES))
    optimum = alphas[:, None] * label + (1 - alphas[:, None]) * torch.softmax(TEACHER_LOGITS, dim=-1)
    figure, ax = plt.subplots(figsize=(5, 2.8))
    ax.stackplot(alphas, optimum.T, labels=CLASSES, colors=[BLUE, ORANGE, GREEN, RED])
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="alpha", ylabel="student's probability")
    ax.legend(frameon=False, labelcolor=INK, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def kinds_of_knowledge() -> Figure:
    """Teacher and student as stacks of layers, and what the one takes from the other."""
    figure, ax = plt.subplots(figsize=(8, 4.2))
    ax.set(xlim=(0, 16), ylim=(-0.4, 8.2))
    ax.axis("off")
    teacher = _stack(ax, x=2.6, num_layers=6, name="teacher", color=BLUE)
    student = _stack(ax, x=9.4, num_layers=3, name="student", color=ORANGE)
    for above, below in zip(teacher[1::2], student, strict=True):
        _arrow(ax, (5.6, above), (9.4, below), GREEN)
    _arrow(ax, (5.6, 7.3), (9.4, 7.3), RED)
    for x, where in ((2.6, teacher[-1]), (9.4, student[-1])):
        for start, end in ((0.6, 1.2), (1.2, 2.0), (0.6, 2.0), (2.0, 2.6)):
            ax.annotate(
                "",
                (x + end, where - 0.15),
                (x + start, where - 0.15),
                arrowprops={"arrowstyle": "<->", "color": "white", "connectionstyle": "arc3,rad=-0.5", "lw": 1},
            )
    notes = (
        (7.3, RED, "response", "which classes it finds likely"),
        (5.2, INK, "relation", "who is like whom, inside a layer"),
    )
    for y, color, kind, words in (*notes, (2.6, GREEN, "feature", "what a layer makes of a token")):
        ax.text(13.0, y, kind, color=color, weight="bold", va="bottom")
        ax.text(13.0, y, words, color=INK, va="top", fontsize=8.5, wrap=True)
    return figure


def _stack(ax: Axes, x: float, num_layers: int, name: str, color: str) -> list[float]:
    """Draw layers from y = 0.4 to 6.4 and a head above; the middles of the layers, from the lowest."""
    height = 6.0 / num_layers
    middles = [0.4 + height * (layer + 0.5) for layer in range(num_layers)]
    for layer, middle in enumerate(middles, 1):
        ax.add_patch(plt.Rectangle((x, middle - height / 2 + 0.06), 3, height - 0.12, color=color, alpha=0.85))
        ax.text(x + 0.15, middle, f"{layer}", color="white", va="center", fontsize=9)
    ax.add_patch(plt.Rectangle((x, 6.9), 3, 0.8, color=color))
    ax.text(x + 1.5, 7.3, "logits", color="white", ha="center", va="center", fontsize=9)
    ax.text(x + 1.5, -0.1, name, color=INK, ha="center", va="center")
    return middles


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": color, "lw": 1.6})


FIGURES = (temperature, temperature_gradient, alpha, kinds_of_knowledge)


def draw(folder: Path = IMAGES) -> list[Path]:
    """Write each figure as an SVG that is the same, byte for byte, whenever it is drawn with the same Matplotlib."""
    matplotlib.use("agg")
    paths = []
    with plt.rc_context(STYLE):
        for figure_of in FIGURES:
            figure = figure_of()
            paths.append(folder / f"{figure_of.__name__}.svg")
            figure.savefig(paths[-1], transparent=True, bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)
    return paths


if __name__ == "__main__":
    draw()
