"""Which students are trained, in which order."""

from dataclasses import dataclass

from ways import WAYS


@dataclass(frozen=True)
class Setting:
    """What the students of all seeds have in common."""

    way: str
    layers: tuple[int, ...]
    """Which of the teacher's layers the student has at the start, counted from 0."""
    steps: int
    rate: float = 2e-4
    batch_size: int = 32

    @property
    def key(self) -> str:
        layers = " ".join(map(str, self.layers))
        return f"{self.way}; layers {layers}; {self.steps} steps of {self.batch_size}; rate {self.rate:g}"


LAYERS = {3: (0, 3, 5), 2: (0, 5)}
OTHER_LAYERS = [(0, 2, 4), (0, 1, 2), (3, 4, 5), (0, 3), (0, 1), (4, 5)]
OTHER_RATES = (1e-4, 4e-4)
STEPS = 200
OTHERS = ("MobileBERT", "VID", "CRD", "NST")
CHOSEN = ("soft labels and hidden states", "labels alone")


def choices() -> list[Setting]:
    """Tried with the first seed alone, to choose the layers and the learning rate of all others."""
    layers = [Setting("soft labels", chosen, STEPS) for chosen in (*LAYERS.values(), *OTHER_LAYERS)]
    rates = [Setting(way, LAYERS[3], STEPS, rate) for way in ("labels alone", "soft labels") for rate in OTHER_RATES]
    return layers + rates


def ways() -> list[Setting]:
    return [Setting(way, layers, STEPS) for way in WAYS if way not in OTHERS for layers in LAYERS.values()]


def others() -> list[Setting]:
    """Ways that came later, beside the two that they are to be compared with."""
    return [
        Setting(way, layers, STEPS) for way in ("labels alone", "soft labels", *OTHERS) for layers in LAYERS.values()
    ]


def longer() -> list[Setting]:
    """An epoch for one way, chosen after the first seed of all, and for labels alone."""
    return [Setting(way, layers, 1052, batch_size=64) for way in CHOSEN for layers in LAYERS.values()]


def longest() -> list[Setting]:
    """Three epochs for the same two, from the layers that were best with the first seed of the short runs."""
    return [Setting(way, layers, 3156, batch_size=64) for way in CHOSEN for layers in ((0, 2, 4), (0, 3))]


PLAN = {"choices": choices, "ways": ways, "others": others, "longer": longer, "longest": longest}
