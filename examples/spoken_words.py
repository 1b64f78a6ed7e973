"""Words that are made here, since no recordings come with Python: buzz and noise, as a mouth would shape them.

Not an example itself: `distill_transcriber.py` listens to them. A vowel is a train of pulses through three resonances,
whose frequencies are averages over men who were recorded by Peterson and Barney, Control Methods Used in a Study of
the Vowels, 1952; a hiss is noise through others. Every word has a speaker of its own: the pitch, the length of the
vocal tract that moves all resonances, the tempo, and the noise of the room.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter


SAMPLING_RATE = 16000
RESONANCES = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
    "m": (250, 1200, 2100),
    "n": (250, 1700, 2600),
    "f": (1500, 4500, 7000),
    "s": (4200, 5500, 7200),
}
HISSES = "fs"
WORDS = (
    "amen fame famine fan fin foam fun mania man men menu moon mouse name neon nine noise nose sea sofa some son sum"
)
BANDWIDTHS = (70, 100, 150)


def spoken_words(count: int, seed: int) -> tuple[list[str], list[NDArray[np.float32]]]:
    """Words, each letter by letter as it is written, and how each sounds."""
    chance = np.random.default_rng(seed)
    words = [str(word) for word in chance.choice(WORDS.split(), size=count)]
    return words, [spoken(word, chance) for word in words]


def spoken(word: str, chance: np.random.Generator) -> NDArray[np.float32]:
    """One speaker says one word."""
    pitch, tract = chance.uniform(90, 260), chance.uniform(0.85, 1.2)
    seconds = chance.uniform(0.07, 0.13)
    sounds = [letter_sound(letter, pitch, tract, seconds * chance.uniform(0.7, 1.3), chance) for letter in word]
    wave = np.concatenate(sounds)
    noise = 10 ** chance.uniform(-1.5, 0.0)
    wave += noise * wave.std() * chance.normal(size=len(wave))
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def letter_sound(
    letter: str, pitch: float, tract: float, seconds: float, chance: np.random.Generator
) -> NDArray[np.float64]:
    """One letter, which swells and fades."""
    size = int(seconds * SAMPLING_RATE)
    phases = np.cumsum(np.full(size, pitch / SAMPLING_RATE))
    wave = chance.normal(size=size) if letter in HISSES else np.diff(np.floor(phases), prepend=0.0)
    for frequency, bandwidth in zip(RESONANCES[letter], BANDWIDTHS, strict=True):
        radius = np.exp(-np.pi * bandwidth / SAMPLING_RATE)
        angle = 2 * np.pi * min(frequency * tract, 0.45 * SAMPLING_RATE) / SAMPLING_RATE
        wave = lfilter([1.0], [1.0, -2 * radius * np.cos(angle), radius**2], wave)
    return wave / wave.std() * np.hanning(size) ** 0.5
